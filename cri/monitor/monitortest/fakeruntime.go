package monitortest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cri/ociruntime"
)

// fakeRuntime is an OCI runtime whose containers are ordinary processes, so that tests need neither root nor
// a root file system. A container runs the file "program" of its bundle, an exec runs the file that its first
// argument names. A bundle with a file "refuse" cannot be made into a container.
const fakeRuntime = `#!/bin/sh
while [ $# -gt 1 ]; do
	case $1 in
	--root) root=$2; shift;;
	--bundle) bundle=$2; shift;;
	--pid-file) pidfile=$2; shift;;
	--process) process=$2; shift;;
	--log|--log-format) shift;;
	create|start|exec|state|delete) verb=$1;;
	esac
	shift
done
id=$1
dir=$root/$id

# The shell gives background processes /dev/null as stdin, unless they are given another.
exec 5<&0

fail() {
	echo "{\"level\":\"error\",\"msg\":\"$1\"}" >&3
	exit 1
}

if [ $verb = create ]; then
	[ ! -e $bundle/refuse ] || fail "the bundle is refused"
	mkdir -p $dir
	mkfifo $dir/start
	sh -c "read line <$dir/start; exec $bundle/program" <&5 5<&- 3>&- &
	echo $! >$dir/pid
	cp $dir/pid $pidfile
	exit
fi

[ -e $dir/pid ] || fail "container $id does not exist"
case $verb in
start)
	[ ! -e $dir/started ] || fail "container $id is running"
	touch $dir/started
	echo go >$dir/start
	;;
exec)
	program=$(sed -n 's/.*"args":\["\([^"]*\)".*/\1/p' $process)
	[ -x "$program" ] || fail "no such program"

	# The process waits for the end of this shell, which would reap it, too: it alone holds descriptor 6.
	gate=$root/gate.$$
	mkfifo $gate
	exec 6<>$gate 7<$gate
	rm $gate
	sh -c "read line <&7; exec $program 7<&-" <&5 5<&- 3>&- 4>&- 6>&- &
	echo $! >$pidfile
	;;
state)
	status=created
	[ ! -e $dir/started ] || status=running
	echo "{\"id\":\"$id\",\"status\":\"$status\"}"
	;;
delete)
	kill -KILL $(cat $dir/pid)
	rm -r $dir
	;;
esac
exit 0
`

// FakeRuntime returns an OCI runtime, with its state below dir, whose containers are ordinary processes.
func FakeRuntime(tb testing.TB, dir string) ociruntime.Runtime {
	tb.Helper()
	rt := ociruntime.Runtime{
		Program: filepath.Join(dir, "fake-runtime"),
		Root:    filepath.Join(dir, "runtime"),
	}
	writeProgram(tb, rt.Program, fakeRuntime)
	return rt
}

// FakeBundle makes a bundle of FakeRuntime that runs a shell script, and returns its path.
func FakeBundle(tb testing.TB, dir, script string) string {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	writeProgram(tb, filepath.Join(dir, "program"), "#!/bin/sh\n"+script+"\n")
	return dir
}

func writeProgram(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		tb.Fatal(err)
	}
}
