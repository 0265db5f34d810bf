package scenario

import "testing"

func TestDemo(t *testing.T) {
	c := open(t)
	out, err := c.cluster("demo")
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
}
