// Command generate writes the Go code of proto/ into go/cni/internal, with no protoc: protocompile reads the files, and
// the plugins that protoc would start are tools of this module.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/workloadnet/workloadnet/go/dev/generated"
)

func main() {
	log.SetFlags(0)
	root, err := generated.Root()
	if err != nil {
		log.Fatal(err)
	}
	files, err := generated.Files(root)
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range files {
		path := filepath.Join(root, generated.Folder, file.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, file.Content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
