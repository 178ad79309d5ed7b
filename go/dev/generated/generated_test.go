package generated

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestTheGeneratedCodeIsThatOfTheContract(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]bool{}
	for _, file := range files {
		expected[file.Path] = true
		found, err := os.ReadFile(filepath.Join(root, Folder, file.Path))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(found, file.Content) {
			t.Errorf("%s is not what proto/ says: run go generate in go/cni", file.Path)
		}
	}
	found, err := filepath.Glob(filepath.Join(root, Folder, "*", "*.pb.go"))
	if err != nil || len(found) != len(expected) {
		t.Errorf("%d files are generated, and there are %v, %v", len(expected), found, err)
	}
}
