package charts

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	apps_validation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	core_validation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	rbac_validation "k8s.io/kubernetes/pkg/apis/rbac/validation"
)

// strict decodes as an API server does that is asked for --validate=strict: no unknown field, none twice; defaults are filled in.
var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDecoder()

// decode makes the API server's own type of what it would get.
func decode(t *testing.T, name string, object []byte) runtime.Object {
	t.Helper()
	decoded, _, err := strict.Decode(object, nil, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return decoded
}

// faults are what the API server's own validation says of an object.
func faults(object runtime.Object) field.ErrorList {
	options := core_validation.PodValidationOptions{}
	switch object := object.(type) {
	case *apps.DaemonSet:
		return apps_validation.ValidateDaemonSet(object, options)
	case *core.ConfigMap:
		return core_validation.ValidateConfigMap(object)
	case *core.Namespace:
		return core_validation.ValidateNamespace(object)
	case *core.ServiceAccount:
		return core_validation.ValidateServiceAccount(object)
	case *core.Service:
		return core_validation.ValidateServiceCreate(object)
	case *rbac.ClusterRole:
		return rbac_validation.ValidateClusterRole(object, rbac_validation.ClusterRoleValidationOptions{})
	case *rbac.ClusterRoleBinding:
		return rbac_validation.ValidateClusterRoleBinding(object)
	}
	return field.ErrorList{field.InternalError(nil, nil)}
}
