package install

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
)

func TestMergeValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte("mtu: 1300\nimage: {tag: file, pullPolicy: Never}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		values Values
		want   map[string]any
	}{
		{"nothing", Values{}, map[string]any{}},
		{"a list", Values{Set: []string{"client.routing.allowConflictingSubnets={10.128.0.0/9,+fd00::/8}"}},
			map[string]any{"client": map[string]any{"routing": map[string]any{"allowConflictingSubnets": []any{"10.128.0.0/9", "+fd00::/8"}}}}},
		{"an empty list", Values{Set: []string{"egress.allow={}"}}, map[string]any{"egress": map[string]any{"allow": []any{}}}},
		{"a key taken away", Values{Set: []string{"client.dns=null"}}, map[string]any{"client": map[string]any{"dns": nil}}},
		{"--set wins over a file", Values{Files: []string{file}, Set: []string{"mtu=1400"}},
			map[string]any{"mtu": int64(1400), "image": map[string]any{"tag": "file", "pullPolicy": "Never"}}},
		{"--set-string keeps digits text", Values{SetString: []string{"image.tag=12"}},
			map[string]any{"image": map[string]any{"tag": "12"}}},
		{"--image wins and leaves the pull policy", Values{Files: []string{file}, Image: "localhost:5000/culvert/gateway:dev"},
			map[string]any{"mtu": float64(1300), "image": map[string]any{"repository": "localhost:5000/culvert/gateway", "tag": "dev", "pullPolicy": "Never"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := row.values.Merge()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got  %#v\nwant %#v", got, row.want)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	for _, row := range []struct {
		name   string
		values Values
	}{
		{"a missing file", Values{Files: []string{"/nonexistent/values.yaml"}}},
		{"a key without a value", Values{Set: []string{"mtu"}}},
		{"an unclosed list", Values{Set: []string{"egress.allow={10.0.0.0/8"}}},
		{"an image without a tag", Values{Image: "localhost:5000/culvert/gateway"}},
		{"an image without a name", Values{Image: ":dev"}},
		{"an image with an empty tag", Values{Image: "culvert/gateway:"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := row.values.Merge()
			if err == nil {
				t.Fatalf("accepted as %v", got)
			}
			if code := failure.Of(err).Code; code != failure.Usage {
				t.Errorf("exit code %d, want %d", code, failure.Usage)
			}
		})
	}
}
