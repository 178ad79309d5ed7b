// Package charts holds the Helm chart and the kustomize base against each other and against Kubernetes' own rules.
package charts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	v2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	documents "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/capabilities"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	chartFolder = "../../packaging/helm/workloadnet"
	baseFolder  = "../../packaging/kubernetes"
)

// A rendered holds objects by kind and name, each as the JSON that the API server would get.
type rendered map[string][]byte

func TestMain(m *testing.M) {
	// Helm says of each file that a link leads to it.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	// As on every API server of a cluster whose network runs in pods.
	capabilities.Setup(true, 0)
	os.Exit(m.Run())
}

// chart renders the chart of this repository.
func chart(namespace, values string) (rendered, error) {
	chart, err := loader.LoadDir(chartFolder)
	if err != nil {
		return nil, err
	}
	return render(chart, namespace, values)
}

// render does what `helm install workloadnet CHART --namespace NAMESPACE --values VALUES` sends.
func render(chart *v2.Chart, namespace, values string) (rendered, error) {
	given := map[string]any{}
	if err := yaml.Unmarshal([]byte(values), &given); err != nil {
		return nil, err
	}
	release := common.ReleaseOptions{Name: "workloadnet", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, given, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(context.Background(), chart, all)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for name, file := range files {
		if filepath.Ext(name) == ".yaml" {
			text.WriteString("\n---\n" + file)
		}
	}
	return parse(text.String())
}

// mustChart renders what has to be rendered.
func mustChart(t *testing.T, namespace, values string) rendered {
	t.Helper()
	objects, err := chart(namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// base renders packaging/kubernetes as `kubectl apply -k` does.
func base(t *testing.T) rendered {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), baseFolder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func parse(text string) (rendered, error) {
	objects := rendered{}
	documents := documents.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object := struct {
			Kind     string
			Metadata struct{ Name string }
		}{}
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, err
		}
		if object.Kind == "" {
			continue
		}
		// Strict: no key twice.
		text, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, err
		}
		name := object.Kind + "/" + object.Metadata.Name
		if _, there := objects[name]; there {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		objects[name] = text
	}
}

// names are those that begin so, sorted.
func (r rendered) names(begin string) []string {
	var names []string
	for name := range r {
		if strings.HasPrefix(name, begin) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
