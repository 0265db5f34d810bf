package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// series is one line of a page of metrics: a value and, if the page says so, when it was taken (milliseconds
// since 1970, else 0).
type series struct {
	name   string
	labels map[string]string
	value  float64
	when   int64
}

// page is what an endpoint has answered: its series, and the types of their families (counter, gauge,
// histogram, summary, untyped).
type page struct {
	types  map[string]string
	series []series
}

// parse reads Prometheus' text format, version 0.0.4.
func parse(text []byte) (page, error) {
	p := page{types: map[string]string{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(kind, " ")
			p.types[name] = kind
		}

		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}

		s, err := parseSeries(line)
		if err != nil {
			return p, fmt.Errorf("line %q: %w", line, err)
		}

		p.series = append(p.series, s)
	}

	return p, lines.Err()
}

// parseSeries reads NAME{LABEL="VALUE",...} VALUE [TIME].
func parseSeries(line string) (series, error) {
	s := series{labels: map[string]string{}}
	end := strings.IndexAny(line, "{ ")
	if end < 0 {
		return s, fmt.Errorf("no value")
	}

	s.name, line = line[:end], line[end:]
	if line[0] == '{' {
		rest, err := parseLabels(line[1:], s.labels)
		if err != nil {
			return s, err
		}

		line = rest
	}

	fields := strings.Fields(line)
	if len(fields) < 1 || len(fields) > 2 {
		return s, fmt.Errorf("%d fields after the name, want a value and perhaps a time", len(fields))
	}

	var err error
	if len(fields) == 2 {
		if s.when, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
			return s, err
		}
	}

	s.value, err = strconv.ParseFloat(fields[0], 64)
	return s, err
}

// parseLabels reads labels up to the closing brace, and returns what follows it. The format escapes
// backslash, quote and newline as Go does.
func parseLabels(text string, labels map[string]string) (rest string, err error) {
	for {
		text = strings.TrimLeft(text, ", ")
		if rest, ok := strings.CutPrefix(text, "}"); ok {
			return rest, nil
		}

		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return "", fmt.Errorf("label %q without a value", text)
		}

		quoted, err := strconv.QuotedPrefix(value)
		if err != nil {
			return "", fmt.Errorf("label %s: %w", name, err)
		}
		if labels[name], err = strconv.Unquote(quoted); err != nil {
			return "", fmt.Errorf("label %s: %w", name, err)
		}

		text = value[len(quoted):]
	}
}

// family returns the name of the family of a series: a histogram's and a summary's series have suffixes.
func (p page) family(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, suffix)
		if kind := p.types[base]; ok && (kind == "histogram" || kind == "summary") {
			return base
		}
	}
	return name
}

// summaryPage makes a page of /stats/summary: each number is a series with the path of its fields as its name
// ("node.cpu.usageNanoCores"), and pod and container as labels.
func summaryPage(text []byte) (page, error) {
	var summary struct {
		Node map[string]any   `json:"node"`
		Pods []map[string]any `json:"pods"`
	}

	p := page{types: map[string]string{}}
	if err := json.Unmarshal(text, &summary); err != nil {
		return p, err
	}

	p.flatten("node", summary.Node, nil)
	for _, pod := range summary.Pods {
		ref, _ := pod["podRef"].(map[string]any)
		labels := map[string]string{"namespace": stringOf(ref["namespace"]), "pod": stringOf(ref["name"])}
		p.flatten("pod", pod, labels)
	}

	return p, nil
}

// flatten adds the numbers below a value. Elements of lists are told apart by their names: a container's is a
// label, what else has a name (volumes, interfaces) is added up.
func (p *page) flatten(path string, value any, labels map[string]string) {
	switch v := value.(type) {
	case float64:
		if strings.HasSuffix(path, "usageCoreNanoSeconds") || strings.HasSuffix(path, "Bytes") &&
			strings.Contains(path, "network") {
			p.types[path] = "counter"
		}

		p.series = append(p.series, series{name: path, labels: labels, value: v})

	case map[string]any:
		for field, inner := range v {
			p.flatten(path+"."+field, inner, labels)
		}

	case []any:
		for _, element := range v {
			p.flatten(path, element, withContainer(path, element, labels))
		}
	}
}

// withContainer adds the label of a container to those of its pod.
func withContainer(path string, element any, labels map[string]string) map[string]string {
	fields, _ := element.(map[string]any)
	name := stringOf(fields["name"])
	if name == "" || path != "pod.containers" {
		return labels
	}

	all := map[string]string{"container": name}
	maps.Copy(all, labels)
	return all
}

// stringOf is v if it is a string, else empty.
func stringOf(v any) string {
	s, _ := v.(string)
	return s
}
