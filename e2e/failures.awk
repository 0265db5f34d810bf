# Of the output of go test -v: what each failed test said, the first lines of each message.
/^=== RUN/          { said = 0; more = 0 }
/_test\.go:[0-9]+:/ { more = 5 }
more > 0            { if (said < 60) line[said++] = substr($0, 1, 600); more-- }
/^ *--- FAIL/       { for (i = 0; i < said; i++) print line[i]; print; said = 0 }
