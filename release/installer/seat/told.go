package seat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Flags of an agent that say where else its runtime may be named.
var (
	configFlag    = regexp.MustCompile(`--config[= ](\S+)`)
	configDirFlag = regexp.MustCompile(`--config-dir[= ](\S+)`)
)

// checkAgent refuses an agent that is told its runtime from a place that is not known here: its pods would
// end, and it would go on with the runtime that it has.
func (r Runtime) checkAgent(ctx context.Context, said endpoints) error {
	agent, err := r.agent(ctx)
	if err != nil {
		return err
	}
	arguments, err := r.Units.Arguments(ctx, agent)
	if err != nil {
		return err
	}

	line := strings.Join(arguments, " ")
	unknown := flagsOf(line)
	for _, path := range flagFiles {
		if i := slices.Index(unknown, said[path]); i >= 0 {
			unknown = slices.Delete(unknown, i, i+1)
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s has the flag --container-runtime-endpoint=%s, which is in none of %s",
			agent, unknown[0], strings.Join(flagFiles, ", "))
	}

	if match := configFlag.FindStringSubmatch(line); match != nil && match[1] != agentConfig {
		return fmt.Errorf("%s reads %s, not %s", agent, match[1], agentConfig)
	}
	if match := configDirFlag.FindStringSubmatch(line); match != nil {
		return checkDropIns(r.Root + match[1])
	}
	return nil
}

// checkDropIns refuses files that are laid over the agent's configuration and name a runtime.
func checkDropIns(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".conf" {
			return err
		}
		text, err := readFile(path)
		if err != nil {
			return err
		}
		endpoint, err := configured(text)
		if err == nil && endpoint != "" {
			err = fmt.Errorf("it names the runtime %s, over what %s says", endpoint, agentConfig)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
