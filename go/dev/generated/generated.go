// Package generated makes the Go code of proto/ as a value. The command generate writes it down; a test compares it with
// what is there.
package generated

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	// Folder is where the code belongs, below the repository's root.
	Folder = "go/cni/internal"
	module = "github.com/containerd/go-cni/internal"
	// Files are registered by their path for the whole process, which also holds those of containerd: a bare
	// "workload.proto" would be anybody's.
	prefix = "workloadnet/"
)

// File is one generated file, its path below Folder.
type File struct {
	Path    string
	Content []byte
}

// packages become of the files of the same name in proto/.
var packages = []string{"inspection", "workload"}

// plugins are tools of this module.
var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

// Root finds the repository's root above the working directory.
func Root() (string, error) {
	folder, err := os.Getwd()
	for ; err == nil; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "proto/workload.proto")); err == nil {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			return "", errors.New("there is no proto/workload.proto in any folder above")
		}
	}
	return "", err
}

// Files generates everything.
func Files(root string) ([]File, error) {
	request, err := request(root)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, plugin := range plugins {
		made, err := run(plugin, request)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
		files = append(files, made...)
	}
	return files, nil
}

// request is what protoc would send to its plugins.
func request(root string) ([]byte, error) {
	compiler := protocompile.Compiler{
		Resolver: &protocompile.SourceResolver{
			Accessor: func(path string) (io.ReadCloser, error) {
				return os.Open(filepath.Join(root, "proto", strings.TrimPrefix(path, prefix)))
			},
		},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	parameters := []string{"paths=import", "module=" + module}
	var names []string
	for _, name := range packages {
		file := prefix + name + ".proto"
		names = append(names, file)
		parameters = append(parameters, fmt.Sprintf("M%s=%s/%s", file, module, name))
	}
	compiled, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	parameter := strings.Join(parameters, ",")
	made := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: &parameter}
	for _, file := range compiled {
		made.ProtoFile = append(made.ProtoFile, protodesc.ToFileDescriptorProto(file))
	}
	return proto.Marshal(made)
}

func run(plugin string, request []byte) ([]File, error) {
	command := exec.Command("go", "tool", plugin)
	command.Stdin = bytes.NewReader(request)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	var files []File
	for _, file := range response.GetFile() {
		files = append(files, File{Path: file.GetName(), Content: []byte(file.GetContent())})
	}
	return files, nil
}
