package charts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/kubernetes/pkg/apis/apps"
	apps_validation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	core_validation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
)

const daemonset = "DaemonSet/workloadnetd"

// everything is each value that is empty by default.
const everything = `
image: {repository: "registry.example:5000/net/workloadnet", tag: 9.9.9, pullPolicy: Always}
imagePullSecrets: [{name: pull}]
config: |
  [network]
  prefixes = ["10.1.0.0/16"]
  [metrics]
  listen = "0.0.0.0:9100"
extraArgs: [--log-format, json]
extraEnv: [{name: RUST_LOG, value: debug}]
install: {extraArgs: [--network, pods]}
hostPaths: {cniBin: /var/lib/other/bin, cniConf: /var/lib/other/net.d}
resources: {limits: {memory: 256Mi}, requests: {cpu: 0.1}}
probes: {startup: {failureThreshold: 300}, readiness: {periodSeconds: 3}, liveness: {timeoutSeconds: 7}}
tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoSchedule}]
nodeSelector: {pool: a}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a]}]}]
priorityClassName: system-cluster-critical
updateStrategy: {rollingUpdate: {maxUnavailable: 10%}}
podLabels: {team: net}
podAnnotations: {"example.org/a": "1"}
serviceAccount: {name: other, annotations: {"example.org/b": "2"}}
namespace: {create: true}
`

func daemons(t *testing.T, objects rendered) *apps.DaemonSet {
	t.Helper()
	return decode(t, daemonset, objects[daemonset]).(*apps.DaemonSet)
}

func TestTheChartRendersTheObjectsOfTheBase(t *testing.T) {
	// Either has a hash of its own making of the settings.
	hash := regexp.MustCompile(`\b(workloadnetd-)[0-9a-z]{10}\b`)
	plain := func(objects rendered) rendered {
		plain := rendered{}
		for name, object := range objects {
			plain[hash.ReplaceAllString(name, "${1}HASH")] = hash.ReplaceAll(object, []byte("${1}HASH"))
		}
		return plain
	}
	base := plain(base(t))
	chart := plain(mustChart(t, "workloadnet", "namespace: {create: true}"))
	if ours, theirs := chart.names(""), base.names(""); !slices.Equal(ours, theirs) {
		t.Fatalf("the chart has %v\nthe base %v", ours, theirs)
	}
	for name, object := range base {
		if !equality.Semantic.DeepEqual(decode(t, name, chart[name]), decode(t, name, object)) {
			t.Errorf("%s\nchart %s\nbase  %s", name, chart[name], object)
		}
	}
	// By default the namespace is the user's to make.
	delete(chart, "Namespace/workloadnet")
	if ours := plain(mustChart(t, "workloadnet", "")); !reflect.DeepEqual(ours, chart) {
		t.Errorf("namespace.create changes more than the namespace:\n%s", ours)
	}
}

func TestEveryObjectIsWhatTheApiServerTakes(t *testing.T) {
	for _, objects := range []rendered{
		base(t),
		mustChart(t, "workloadnet", ""),
		mustChart(t, "network", everything),
		mustChart(t, "network", "updateStrategy: {type: OnDelete}"),
	} {
		for name, object := range objects {
			for _, fault := range faults(decode(t, name, object)) {
				t.Errorf("%s: %v", name, fault)
			}
		}
	}
}

func TestAnUnknownFieldAndABadValueAreFound(t *testing.T) {
	object := string(base(t)[daemonset])
	_, _, err := strict.Decode([]byte(strings.Replace(object, `"hostNetwork"`, `"hostNetworks"`, 1)), nil, nil)
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.template.spec.hostNetworks"`) {
		t.Errorf("a misspelt field: %v", err)
	}
	surging := decode(t, daemonset, []byte(strings.Replace(object, `"maxSurge":0`, `"maxSurge":1`, 1)))
	if found := faults(surging); len(found) != 1 || found[0].Field != "spec.updateStrategy.rollingUpdate.maxSurge" {
		t.Errorf("a surge beside what may be unavailable: %v", found)
	}
}

func TestEveryValueArrives(t *testing.T) {
	objects := mustChart(t, "network", everything)
	set := daemons(t, objects)
	pod := set.Spec.Template.Spec
	daemon, install := pod.Containers[0], pod.InitContainers[0]
	memory, cpu := daemon.Resources.Limits.Memory().String(), install.Resources.Requests.CPU().String()
	was := daemons(t, mustChart(t, "network", "")).Spec.Template.Spec
	for what, pair := range map[string][2]any{
		"image":             {daemon.Image + " " + install.Image, strings.Repeat(" registry.example:5000/net/workloadnet:9.9.9", 2)[1:]},
		"pullPolicy":        {daemon.ImagePullPolicy, core.PullAlways},
		"imagePullSecrets":  {pod.ImagePullSecrets, []core.LocalObjectReference{{Name: "pull"}}},
		"extraArgs":         {daemon.Args, []string{"--log-format", "json"}},
		"install.extraArgs": {install.Args, []string{"--network", "pods"}},
		"extraEnv":          {daemon.Env[len(daemon.Env)-1], core.EnvVar{Name: "RUST_LOG", Value: "debug"}},
		"hostPaths":         {hostPaths(pod), []string{"/proc/sys/net", "/run/netns", "/run/workloadnet", "/var/lib/other/bin", "/var/lib/other/net.d"}},
		"memory":            {memory, "256Mi"},
		"cpu":               {cpu, "100m"},
		"requested memory":  {daemon.Resources.Requests.Memory(), was.Containers[0].Resources.Requests.Memory()},
		"startup":           {daemon.StartupProbe.FailureThreshold, int32(300)},
		"readiness":         {daemon.ReadinessProbe.PeriodSeconds, int32(3)},
		"liveness":          {daemon.LivenessProbe.TimeoutSeconds, int32(7)},
		"liveness, where":   {asked(daemon.LivenessProbe), "127.0.0.1:9100/healthz"},
		"readiness, where":  {asked(daemon.ReadinessProbe), "127.0.0.1:9100/readyz"},
		"startup, where":    {asked(daemon.StartupProbe), "127.0.0.1:9100/healthz"},
		"metrics": {daemon.Ports, []core.ContainerPort{{
			Name: "metrics", HostIP: "0.0.0.0", ContainerPort: 9100, Protocol: core.ProtocolTCP,
		}}},
		"tolerations": {pod.Tolerations, []core.Toleration{{
			Key: "node.kubernetes.io/not-ready", Operator: core.TolerationOpExists, Effect: core.TaintEffectNoSchedule,
		}}},
		"nodeSelector":      {pod.NodeSelector, map[string]string{"kubernetes.io/os": "linux", "pool": "a"}},
		"affinity":          {pod.Affinity != nil, true},
		"priorityClassName": {pod.PriorityClassName, "system-cluster-critical"},
		"updateStrategy":    {set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String(), "10%"},
		"podLabels":         {set.Spec.Template.Labels, map[string]string{"app.kubernetes.io/name": "workloadnet", "team": "net"}},
		"podAnnotations":    {set.Spec.Template.Annotations["example.org/a"], "1"},
		"serviceAccount":    {pod.ServiceAccountName, "other"},
		"whose rights": {
			decode(t, "", objects["ClusterRoleBinding/workloadnetd"]).(*rbac.ClusterRoleBinding).Subjects,
			[]rbac.Subject{{Kind: "ServiceAccount", Name: "other", Namespace: "network"}},
		},
		"whose account": {objects.names("ServiceAccount/"), []string{"ServiceAccount/other"}},
	} {
		if !equality.Semantic.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %v, and not %v", what, pair[0], pair[1])
		}
	}
	digest := "sha256:" + strings.Repeat("0", 64)
	pinned := daemons(t, mustChart(t, "network", "image: {digest: "+digest+"}")).Spec.Template.Spec.Containers[0].Image
	if pinned != "workloadnet@"+digest {
		t.Errorf("a digest: %s", pinned)
	}
}

func asked(probe *core.Probe) string {
	return fmt.Sprintf("%s:%s%s", probe.HTTPGet.Host, probe.HTTPGet.Port.String(), probe.HTTPGet.Path)
}

func TestEverythingIsInTheReleasesNamespace(t *testing.T) {
	for name, object := range mustChart(t, "network", "namespace: {create: true}") {
		if strings.Contains(string(object), `"namespace":"workloadnet"`) || name == "Namespace/workloadnet" {
			t.Errorf("%s: %s", name, object)
		}
		if strings.HasPrefix(name, "Cluster") || strings.HasPrefix(name, "Namespace/") {
			continue
		}
		if !strings.Contains(string(object), `"namespace":"network"`) {
			t.Errorf("%s is in no namespace: %s", name, object)
		}
	}
}

func TestBadValuesAreRefusedByName(t *testing.T) {
	for values, words := range map[string]string{
		"imgae: {tag: 1.0.0}":                                  "'imgae'",
		"image: {tag: 1}":                                      "/image/tag",
		"image: {tag: 'a b'}":                                  "/image/tag",
		"image: {digest: abc}":                                 "/image/digest",
		"image: {repository: 'A'}":                             "/image/repository",
		"image: {pullPolicy: Sometimes}":                       "/image/pullPolicy",
		"config: {network: {mtu: 1400}}":                       "/config",
		"config: '[network'":                                   "config: toml",
		"config: '[network]'":                                  `config: the probes need an address and a port in [metrics], and listen is ""`,
		`config: '[metrics] listen = "unix:/run/x"'`:           `toml`,
		`config: 'metrics.listen = "unix:/run/x"'`:             `listen is "unix:/run/x"`,
		"extraArgs: --log-format":                              "/extraArgs",
		"extraEnv: [{nmae: A}]":                                "/extraEnv/0",
		"hostPaths: {cniBin: opt/cni/bin}":                     "/hostPaths/cniBin",
		"resources: {limits: {memory: lots}}":                  "/resources/limits/memory",
		"resources: {limit: {memory: 1Gi}}":                    "'limit'",
		"probes: {liveness: {httpGet: {port: 80}}}":            "'httpGet'",
		"probes: {liveness: {periodSeconds: 0}}":               "/probes/liveness/periodSeconds",
		"tolerations: [{effect: Never}]":                       "/tolerations/0/effect",
		"nodeSelector: {gpu: true}":                            "/nodeSelector/gpu",
		"updateStrategy: {type: Recreate}":                     "/updateStrategy/type",
		"updateStrategy: {rollingUpdate: {maxSurge: 1}}":       "'maxSurge'",
		"updateStrategy: {rollingUpdate: {maxUnavailable: 0}}": "/updateStrategy/rollingUpdate/maxUnavailable",
		"podLabels: {app.kubernetes.io/name: other}":           "/podLabels",
		"serviceAccount: {name: 'No'}":                         "/serviceAccount/name",
		"rbac: {create: 'yes'}":                                "/rbac/create",
		"namespace: {name: other}":                             "'name'",
	} {
		_, err := chart("workloadnet", values)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// The API server refuses a DaemonSet whose selector changes, so neither values nor versions change it.
func TestNoValueAndNoVersionChangesTheSelector(t *testing.T) {
	before, after := daemons(t, mustChart(t, "workloadnet", "")), daemons(t, mustChart(t, "workloadnet", everything))
	before.ResourceVersion, after.ResourceVersion = "1", "1"
	// The API server counts templates itself.
	after.Spec.TemplateGeneration = before.Spec.TemplateGeneration + 1
	for _, fault := range apps_validation.ValidateDaemonSetUpdate(after, before, core_validation.PodValidationOptions{}) {
		t.Error(fault)
	}
	// What was released has this one.
	want := map[string]string{"app.kubernetes.io/name": "workloadnet"}
	if !reflect.DeepEqual(before.Spec.Selector.MatchLabels, want) || len(before.Spec.Selector.MatchExpressions) > 0 {
		t.Errorf("the selector is %v", before.Spec.Selector)
	}
}

func TestChangedSettingsReplaceTheDaemons(t *testing.T) {
	name := func(values string) string {
		objects := mustChart(t, "workloadnet", values)
		names := objects.names("ConfigMap/")
		if len(names) != 1 {
			t.Fatalf("ConfigMaps: %v", names)
		}
		name := strings.TrimPrefix(names[0], "ConfigMap/")
		for _, volume := range daemons(t, objects).Spec.Template.Spec.Volumes {
			if volume.ConfigMap != nil && volume.ConfigMap.Name == name {
				return name
			}
		}
		t.Fatalf("no volume is of %s", name)
		return ""
	}
	if a, b := name(""), name(`config: 'metrics.listen = "[::1]:4777"'`); a == b {
		t.Errorf("both are %s", a)
	}
}

func TestEveryImageHasTheVersionOfTheProduct(t *testing.T) {
	text, err := os.ReadFile("../../Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^version = "(.*)"$`).FindSubmatch(text)
	if version == nil {
		t.Fatal("Cargo.toml has no version")
	}
	for _, objects := range []rendered{base(t), mustChart(t, "workloadnet", "")} {
		pod := daemons(t, objects).Spec.Template.Spec
		for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
			if want := "workloadnet:" + string(version[1]); container.Image != want {
				t.Errorf("%s is of %s, and not of %s", container.Name, container.Image, want)
			}
		}
	}
}

func TestTheRightsAreTheseAndNoOthers(t *testing.T) {
	const want = `ClusterRole/workloadnetd  nodes  list,watch
ClusterRole/workloadnetd  nodes/status  patch
ClusterRole/workloadnetd events.k8s.io events  create,patch`
	for _, objects := range []rendered{base(t), mustChart(t, "workloadnet", "")} {
		var got []string
		for _, name := range objects.names("") {
			var rules []rbac.PolicyRule
			switch role := decode(t, name, objects[name]).(type) {
			case *rbac.ClusterRole:
				rules = role.Rules
			case *rbac.Role:
				rules = role.Rules
			}
			for _, rule := range rules {
				got = append(got, strings.TrimSpace(strings.Join([]string{
					name, strings.Join(rule.APIGroups, ","), strings.Join(rule.Resources, ","),
					strings.Join(rule.ResourceNames, ","), strings.Join(rule.Verbs, ","), strings.Join(rule.NonResourceURLs, ","),
				}, " ")))
			}
		}
		if all := strings.Join(got, "\n"); all != want {
			t.Errorf("the rights are:\n%s", all)
		}
	}
	for _, name := range mustChart(t, "workloadnet", "rbac: {create: false}\nserviceAccount: {create: false}").names("") {
		if strings.Contains(name, "Role") || strings.HasPrefix(name, "ServiceAccount/") {
			t.Errorf("%s is there", name)
		}
	}
}

// hostPaths are what a pod has of the node.
func hostPaths(pod core.PodSpec) []string {
	var paths []string
	for _, volume := range pod.Volumes {
		if volume.HostPath != nil {
			paths = append(paths, volume.HostPath.Path)
		}
	}
	slices.Sort(paths)
	return paths
}

func TestAPodHasTheseFoldersOfTheNodeAndNoOthers(t *testing.T) {
	for _, objects := range []rendered{base(t), mustChart(t, "workloadnet", "")} {
		got := hostPaths(daemons(t, objects).Spec.Template.Spec)
		if !slices.Equal(got, []string{"/etc/cni/net.d", "/opt/cni/bin", "/proc/sys/net", "/run/netns", "/run/workloadnet"}) {
			t.Errorf("they are %v", got)
		}
	}
}

func TestTheDaemonHasTwoCapabilitiesAndNoPrivileges(t *testing.T) {
	for _, objects := range []rendered{base(t), mustChart(t, "workloadnet", everything)} {
		pod := daemons(t, objects).Spec.Template.Spec
		got := pod.Containers[0].SecurityContext
		if got.Privileged != nil && *got.Privileged {
			t.Error("it is privileged")
		}
		if !slices.Equal(got.Capabilities.Add, []core.Capability{"NET_ADMIN", "SYS_ADMIN"}) ||
			!slices.Equal(got.Capabilities.Drop, []core.Capability{"ALL"}) {
			t.Errorf("its capabilities are %v", got.Capabilities)
		}
	}
}

func TestTheDaemonTakesItsSettings(t *testing.T) {
	daemon := os.Getenv("WORKLOADNETD")
	if daemon == "" {
		t.Fatal("WORKLOADNETD names no daemon; cargo xtask go does")
	}
	check := func(settings string) (string, error) {
		file := filepath.Join(t.TempDir(), "workloadnetd.toml")
		if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
		said, err := exec.Command(daemon, "--config", file, "--check-config").CombinedOutput()
		return string(said), err
	}
	for _, objects := range []rendered{base(t), mustChart(t, "workloadnet", ""), mustChart(t, "workloadnet", everything)} {
		names := objects.names("ConfigMap/")
		if len(names) != 1 {
			t.Fatalf("ConfigMaps: %v", names)
		}
		settings := decode(t, names[0], objects[names[0]]).(*core.ConfigMap).Data["workloadnetd.toml"]
		if said, err := check(settings); err != nil {
			t.Errorf("%v\n%s\n%s", err, said, settings)
		}
	}
	if said, err := check("[network]\nprefix = []"); err == nil {
		t.Errorf("an unknown setting is taken: %s", said)
	}
}

func TestAPackedChartNeedsNothingBesideIt(t *testing.T) {
	chart, err := loader.LoadDir(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := chartutil.Save(chart, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if chart, err = loader.LoadFile(packed); err != nil {
		t.Fatal(err)
	}
	if objects, err := render(chart, "workloadnet", ""); err != nil || !reflect.DeepEqual(objects, mustChart(t, "workloadnet", "")) {
		t.Errorf("%v %s", err, objects)
	}
}
