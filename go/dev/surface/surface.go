// Package surface reads what a Go package offers to others, so that two packages can be compared.
package surface

import (
	"fmt"
	"go/types"
	"regexp"

	"golang.org/x/tools/go/packages"
)

// Of reads the package of an import path as it is seen from a folder. Each name maps to a description that is the same
// for whatever a caller cannot tell apart. The exported methods of the unexported type `behind` are a part of it, because
// an interface's value can be asked for them.
func Of(folder, path, behind string) (map[string]string, error) {
	// The package itself from its source, where unexported types are; what it imports from what the compiler wrote down.
	mode := packages.NeedName | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedImports
	loaded, err := packages.Load(&packages.Config{Dir: folder, Mode: mode}, path)
	if err != nil {
		return nil, err
	}
	if len(loaded) != 1 || len(loaded[0].Errors) > 0 {
		return nil, fmt.Errorf("%s in %s: %v", path, folder, loaded[0].Errors)
	}
	return offered(loaded[0].Types, behind), nil
}

func offered(pkg *types.Package, behind string) map[string]string {
	found := map[string]string{}
	for _, name := range pkg.Scope().Names() {
		object := pkg.Scope().Lookup(name)
		if object.Exported() {
			describe(object, found)
		}
		if name == behind {
			methods("behind New", object.Type(), found)
		}
	}
	return found
}

func describe(object types.Object, found map[string]string) {
	name := object.Name()
	switch object := object.(type) {
	case *types.Const:
		found[name] = fmt.Sprintf("const %s = %s", spell(object.Type()), object.Val())
	case *types.Var:
		found[name] = "var " + spell(object.Type())
	case *types.Func:
		found[name] = spell(object.Type())
	case *types.TypeName:
		if object.IsAlias() {
			found[name] = "alias of " + spell(types.Unalias(object.Type()))
			return
		}
		switch underlying := object.Type().Underlying().(type) {
		case *types.Struct:
			found[name] = "struct"
			hidden := ""
			for i := range underlying.NumFields() {
				field := underlying.Field(i)
				if !field.Exported() {
					hidden = ", and fields without names"
					continue
				}
				// The place counts, too: for literals that do not name their fields.
				found[name+"."+field.Name()] = fmt.Sprintf("field %d %s %q", i, spell(field.Type()), underlying.Tag(i))
			}
			found[name] += hidden
		case *types.Interface:
			found[name] = "interface"
			for method := range underlying.Methods() {
				found[name+"."+method.Name()] = spell(method.Type())
			}
		default:
			found[name] = "type " + spell(underlying)
		}
		methods(name, object.Type(), found)
	}
}

func methods(name string, of types.Type, found map[string]string) {
	named, ok := of.(*types.Named)
	if !ok {
		return
	}
	for method := range named.Methods() {
		if method.Exported() {
			_, byPointer := method.Signature().Recv().Type().(*types.Pointer)
			found[name+"."+method.Name()] = fmt.Sprintf("method, by pointer %v, %s", byPointer, spell(method.Type()))
		}
	}
}

// A caller cannot name an unexported type, so its name is of no matter.
var unexported = regexp.MustCompile(`\bcni\.[a-z]\w*`)

func spell(t types.Type) string {
	if function, ok := t.(*types.Signature); ok {
		t = types.NewSignatureType(nil, nil, nil, nameless(function.Params()), nameless(function.Results()), function.Variadic())
	}
	text := types.TypeString(t, func(pkg *types.Package) string { return pkg.Name() })
	return unexported.ReplaceAllString(text, "cni.unexported")
}

// nameless is without the names of parameters, which no caller writes.
func nameless(tuple *types.Tuple) *types.Tuple {
	var all []*types.Var
	for one := range tuple.Variables() {
		all = append(all, types.NewParam(one.Pos(), one.Pkg(), "", one.Type()))
	}
	return types.NewTuple(all...)
}
