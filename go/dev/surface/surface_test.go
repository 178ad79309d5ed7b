package surface

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strings"
	"testing"

	original "github.com/containerd/go-cni"
)

const (
	path = "github.com/containerd/go-cni"
	ours = "../../cni"
)

func TestAllThatGoCNIOffersIsOfferedInTheSameWay(t *testing.T) {
	theirs, err := Of(".", path, "libcni")
	if err != nil {
		t.Fatal(err)
	}
	offers, err := Of(ours, ".", "instance")
	if err != nil {
		t.Fatal(err)
	}
	if len(theirs) < 100 {
		t.Errorf("go-cni is said to offer no more than %d things", len(theirs))
	}
	for name, description := range theirs {
		if offers[name] != description {
			t.Errorf("%s\n  theirs: %s\n  ours:   %s", name, description, offers[name])
		}
	}
}

func TestAResultReadsAndWritesAsGoCNIsDoes(t *testing.T) {
	golden, err := os.ReadFile(ours + "/testdata/result.json")
	if err != nil {
		t.Fatal(err)
	}
	reader := json.NewDecoder(bytes.NewReader(golden))
	reader.DisallowUnknownFields()
	var result original.Result
	if err := reader.Decode(&result); err != nil {
		t.Fatal(err)
	}
	written, err := json.MarshalIndent(result, "", "  ")
	if err != nil || !bytes.Equal(append(written, '\n'), golden) {
		t.Errorf("%v\n%s", err, written)
	}
}

func TestADifferenceIsSeen(t *testing.T) {
	base := `package cni
		type hidden struct{}
		func (hidden) Also() {}
		type Opt func(*hidden) error
		type Old = Opt
		type I interface { Setup(id string, opts ...Opt) error }
		type S struct { A int; B string; c bool }
		func (*S) Raw() []int { return nil }
		const C = 1
		func F(h *hidden) {}`
	for change, names := range map[[2]string][]string{
		{"id string", "name string"}:        nil,
		{"hidden", "concealed"}:             nil,
		{"opts ...Opt", "opts []Opt"}:       {"I.Setup"},
		{"Old = Opt", "Old Opt"}:            {"Old"},
		{"A int; B string", "B string"}:     {"S.A", "S.B"},
		{"A int; ", "A int `json:\"a\"`; "}: {"S.A"},
		{"C = 1", "C = 2"}:                  {"C"},
		{"func (*S)", "func (S)"}:           {"S.Raw"},
		{"F(h *hidden)", "F(h hidden)"}:     {"F"},
		{"Also()", "Also(int)"}:             {"behind New.Also"},
	} {
		changed := strings.ReplaceAll(base, change[0], change[1])
		behind := "hidden"
		if change[0] == behind {
			behind = change[1]
		}
		var different []string
		theirs, ours := read(t, base, "hidden"), read(t, changed, behind)
		for name, description := range theirs {
			if ours[name] != description {
				different = append(different, name)
			}
		}
		slices.Sort(different)
		if !slices.Equal(different, names) {
			t.Errorf("%v is seen in %v", change, different)
		}
	}
}

func read(t *testing.T, source, behind string) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "cni.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := (&types.Config{}).Check("cni", files, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return offered(pkg, behind)
}
