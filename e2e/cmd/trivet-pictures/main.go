// Command trivet-pictures draws the pictures of the documents from their data.
//
//	trivet-pictures [DATA PICTURES]
package main

import (
	"fmt"
	"os"

	"github.com/trivet-node/trivet/e2e/picture"
)

func main() {
	data, pictures := "docs/data", "docs/img"
	if len(os.Args) == 3 {
		data, pictures = os.Args[1], os.Args[2]
	}

	if err := draw(data, pictures); err != nil {
		fmt.Fprintln(os.Stderr, "trivet-pictures:", err)
		os.Exit(1)
	}
}

func draw(data, pictures string) error {
	all, err := picture.Directory(data, pictures)
	if err != nil {
		return err
	}

	for _, drawn := range all {
		if err := os.WriteFile(drawn.Path, drawn.SVG, 0o644); err != nil {
			return err
		}
		fmt.Println(drawn.Path)
	}
	return nil
}
