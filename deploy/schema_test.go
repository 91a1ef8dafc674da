package deploy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// schema is what this test reads of a JSON schema, that of a CRD or that of the chart's values.
type schema struct {
	Type       jsonTypeName      `json:"type"`
	Format     string            `json:"format"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Items      *schema           `json:"items"`
	Ref        string            `json:"$ref"`
	Defs       map[string]schema `json:"definitions"`
	Additional json.RawMessage   `json:"additionalProperties"`
	MaxItems   *int              `json:"maxItems"`
	MaxLength  *int              `json:"maxLength"`
	Enum       []any             `json:"enum"`
	Rules      []struct {
		Rule, Message, MessageExpression string
	} `json:"x-kubernetes-validations"`
}

// jsonTypeName is a type that a schema names, alone or in a list with null.
type jsonTypeName string

func (n *jsonTypeName) UnmarshalJSON(data []byte) error {
	var list []string
	if json.Unmarshal(data, &list) != nil {
		return json.Unmarshal(data, (*string)(n))
	}
	list = slices.DeleteFunc(list, func(s string) bool { return s == "null" })
	if len(list) != 1 {
		return fmt.Errorf("types %s: want one, and perhaps null", data)
	}
	*n = jsonTypeName(list[0])
	return nil
}

// crdSchema returns the schema of the only version in a CRD file.
func crdSchema(t *testing.T, file string) schema {
	t.Helper()
	data, err := fs.ReadFile(CRDs(), file)
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Group    string
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema schema }
			}
		}
	}
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != v1alpha1.Version || crd.Spec.Group != v1alpha1.Group {
		t.Fatalf("%s does not define %s/%s alone", file, v1alpha1.Group, v1alpha1.Version)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func TestSchemasMatchTheGoTypes(t *testing.T) {
	peer, policy := crdSchema(t, "peers.yaml"), crdSchema(t, "policies.yaml")
	for _, row := range []struct {
		name   string
		schema schema
		goType reflect.Type
	}{
		{"Peer spec", peer.Properties["spec"], reflect.TypeFor[v1alpha1.PeerSpec]()},
		{"Peer status", peer.Properties["status"], reflect.TypeFor[v1alpha1.PeerStatus]()},
		{"Policy spec", policy.Properties["spec"], reflect.TypeFor[v1alpha1.Settings]()},
		{"Policy status", policy.Properties["status"], reflect.TypeFor[v1alpha1.PolicyStatus]()},
	} {
		t.Run(row.name, func(t *testing.T) { compare(t, row.name, row.schema, row.goType) })
	}
}

func TestValuesSchemaKnowsEverySetting(t *testing.T) {
	data, err := fs.ReadFile(Chart(), "values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var values schema
	if err := json.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	strict(t, "values", values, values.Defs)
	client := resolve(values.Properties["client"], values.Defs)
	compare(t, "client", expand(client, values.Defs), reflect.TypeFor[v1alpha1.Settings]())
}

// compare reports every JSON field of goType that the schema lacks, and the reverse, and types that
// differ, at any depth.
func compare(t *testing.T, path string, s schema, goType reflect.Type) {
	t.Helper()
	if goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	want := jsonType(goType)
	if s.Type != want {
		t.Errorf("%s: schema says %q, %s is %q", path, s.Type, goType, want)
		return
	}
	switch {
	case want == "array":
		if s.Items == nil {
			t.Errorf("%s: a list without items", path)
			return
		}
		compare(t, path+"[]", *s.Items, goType.Elem())
	case want == "object":
		compareFields(t, path, s, goType)
	}
}

func compareFields(t *testing.T, path string, s schema, goType reflect.Type) {
	t.Helper()
	known := map[string]bool{}
	for i := range goType.NumField() {
		field := goType.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[name] = true
		property, found := s.Properties[name]
		if !found {
			t.Errorf("%s.%s: %s.%s is not in the schema", path, name, goType, field.Name)
			continue
		}
		compare(t, path+"."+name, property, field.Type)
		if required := slices.Contains(s.Required, name); required && options != "" {
			t.Errorf("%s.%s is required, but Go leaves it out when empty", path, name)
		}
	}
	for name := range s.Properties {
		if !known[name] {
			t.Errorf("%s.%s is in the schema, but not a field of %s", path, name, goType)
		}
	}
}

// jsonType is the name a JSON schema has for how Go encodes goType.
func jsonType(goType reflect.Type) jsonTypeName {
	switch {
	case goType == reflect.TypeFor[metav1.Time]():
		return "string"
	case goType.Kind() == reflect.Struct:
		return "object"
	case goType.Kind() == reflect.Slice:
		return "array"
	case goType.Kind() == reflect.Bool:
		return "boolean"
	case goType.Kind() == reflect.String:
		return "string"
	case goType.Kind() == reflect.Int32, goType.Kind() == reflect.Int64:
		return "integer"
	}
	return jsonTypeName("unknown to this test: " + goType.String())
}

// TestCRDsAreBounded keeps the cost of validation bounded: the API server refuses rules whose worst
// case is too dear, and an object without limits is one anyone may fill etcd with.
func TestCRDsAreBounded(t *testing.T) {
	for _, file := range []string{"peers.yaml", "policies.yaml"} {
		for _, part := range []string{"spec", "status"} {
			bounded(t, part, crdSchema(t, file).Properties[part])
		}
	}
}

func bounded(t *testing.T, path string, s schema) {
	t.Helper()
	switch {
	case s.Type == "array" && s.MaxItems == nil:
		t.Errorf("%s: a list without maxItems", path)
	case s.Type == "string" && s.MaxLength == nil && s.Enum == nil && s.Format != "date-time":
		t.Errorf("%s: a string without maxLength", path)
	}
	for _, rule := range s.Rules {
		if rule.Message == "" && rule.MessageExpression == "" {
			t.Errorf("%s: rule %s has no message for people", path, rule.Rule)
		}
	}
	for name, property := range s.Properties {
		bounded(t, path+"."+name, property)
	}
	if s.Items != nil {
		bounded(t, path+"[]", *s.Items)
	}
}

// strict reports objects with named keys that would let unknown ones pass.
func strict(t *testing.T, path string, s schema, defs map[string]schema) {
	t.Helper()
	s = resolve(s, defs)
	if len(s.Properties) > 0 && string(s.Additional) != "false" {
		t.Errorf("%s lets unknown keys pass", path)
	}
	for name, property := range s.Properties {
		strict(t, path+"."+name, property, defs)
	}
	if s.Items != nil {
		strict(t, path+"[]", *s.Items, defs)
	}
}

// resolve follows a reference within the same schema.
func resolve(s schema, defs map[string]schema) schema {
	if name, found := strings.CutPrefix(s.Ref, "#/definitions/"); found {
		return defs[name]
	}
	return s
}

// expand resolves the references below s.
func expand(s schema, defs map[string]schema) schema {
	s = resolve(s, defs)
	for name, property := range s.Properties {
		s.Properties[name] = expand(property, defs)
	}
	if s.Items != nil {
		items := expand(*s.Items, defs)
		s.Items = &items
	}
	return s
}
