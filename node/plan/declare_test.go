package plan_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// declared is the pod of a script, without its settings.
func declared(words []string) *v1.Pod {
	pod := podOf(v1.RestartPolicyAlways)
	for _, w := range words {
		if !strings.Contains(w, "=") {
			name, _, _ := strings.Cut(w, "(")
			addContainer(pod, name)
		}
	}
	return pod
}

// configure applies the settings of a pod, and those of containers in parentheses: a(restart-all-on:42).
func configure(pod *v1.Pod, words []string) error {
	for _, w := range words {
		key, value, setting := strings.Cut(w, "=")
		name, options, special := strings.Cut(strings.TrimSuffix(w, ")"), "(")
		switch {
		case setting && key == "restart":
			pod.Spec.RestartPolicy = v1.RestartPolicy(value)
		case setting && (key == "deadline" || key == "grace"):
			d, err := time.ParseDuration(value)
			if err != nil {
				return err
			}

			if key == "deadline" {
				pod.Spec.ActiveDeadlineSeconds = new(int64(d / time.Second))
			} else {
				pod.Spec.TerminationGracePeriodSeconds = new(int64(d / time.Second))
			}

		case setting:
			return fmt.Errorf("no such setting: %s", key)
		case special:
			_, name, _ = cutLast(name, ":")
			if err := option(podspec.Find(pod, name), options); err != nil {
				return err
			}
		}
	}

	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func option(c *v1.Container, words string) error {
	for word := range strings.SplitSeq(words, ",") {
		key, value, _ := strings.Cut(word, ":")
		switch key {
		case "startup-probe":
			c.StartupProbe = &v1.Probe{}
		case "readiness-probe":
			c.ReadinessProbe = &v1.Probe{}
		case "restart-on", "restart-all-on":
			code, err := strconv.Atoi(value)
			if err != nil {
				return err
			}

			c.RestartPolicyRules = restartAllOn(int32(code))
			if key == "restart-on" {
				c.RestartPolicyRules[0].Action = v1.ContainerRestartRuleActionRestart
			}
			if c.RestartPolicy == nil {
				c.RestartPolicy = new(v1.ContainerRestartPolicyNever)
			}

		default:
			return fmt.Errorf("no such option: %s", key)
		}
	}

	return nil
}

// restartAllOn is a rule that restarts all containers of the pod when this one ends with the code.
func restartAllOn(code int32) []v1.ContainerRestartRule {
	return []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{code},
		},
	}}
}
