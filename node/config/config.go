// Package config gathers the layers of settings that package policy merges: flags and environment on
// the command's side, files and the kubeconfig on the user's side. viper finds values; a strict
// decoder in package policy reads files, because viper forgets case, dots and line numbers.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// ownKeys returns the settings that a workstation may have of its own.
func ownKeys() []policy.Key { return slices.DeleteFunc(policy.Keys(), policy.Key.PolicyOnly) }

// BindFlags adds a flag to fs for every setting of the workstation.
func BindFlags(flags *pflag.FlagSet) {
	for _, key := range ownKeys() {
		usage := fmt.Sprintf("%s (environment %s, file %s)", firstSentence(key.Doc), key.Env, key.Path)
		switch {
		case key.Type.IsList():
			flags.StringSlice(key.Flag, nil, usage)
		case key.Type == policy.TypeInteger:
			flags.Int32(key.Flag, 0, usage)
		default:
			flags.String(key.Flag, "", usage)
		}
	}
	bindVNAT(flags)
}

// Offers returns, by flag, the values that a shell may offer.
func Offers() map[string][]string {
	out := map[string][]string{vnatFlag: policy.Symbols()}
	for _, key := range ownKeys() {
		if len(key.Offers) > 0 {
			out[key.Flag] = key.Offers
		}
	}
	return out
}

// firstSentence returns the first sentence of doc as a flag's usage has it: lower case, no period.
func firstSentence(doc string) string {
	sentence, _, _ := strings.Cut(doc, ". ")
	sentence = strings.TrimSuffix(sentence, ".")
	return strings.ToLower(sentence[:1]) + sentence[1:]
}

// FromCommand returns the settings that the command line and the environment give. An entry of proxyVia
// that --vnat gave has no workload: [Layers] fills it in.
func FromCommand(flags *pflag.FlagSet) (fromFlags, fromEnvironment v1alpha1.Settings, err error) {
	ofFlags, ofEnvironment := viper.New(), viper.New()
	flagTree, envTree := map[string]any{}, map[string]any{}
	for _, key := range ownKeys() {
		if err := errors.Join(ofFlags.BindPFlag(key.Path, flags.Lookup(key.Flag)), ofEnvironment.BindEnv(key.Path, key.Env)); err != nil {
			return fromFlags, fromEnvironment, err
		}
		if flags.Changed(key.Flag) {
			plant(flagTree, key.Path, read(ofFlags, key))
		}
		if _, set := os.LookupEnv(key.Env); set {
			plant(envTree, key.Path, read(ofEnvironment, key))
		}
	}
	if err := errors.Join(settings(flagTree, &fromFlags), settings(envTree, &fromEnvironment)); err != nil {
		return fromFlags, fromEnvironment, err
	}
	return fromFlags, fromEnvironment, addVNAT(flags, &fromFlags)
}

func read(v *viper.Viper, key policy.Key) any {
	switch {
	case key.Type.IsList():
		var out []string
		for _, part := range v.GetStringSlice(key.Path) { // from the environment, one text
			out = append(out, strings.FieldsFunc(part, func(r rune) bool { return r == ',' || r == ' ' })...)
		}
		if fields := key.Type.Fields(); fields != nil {
			return pairs(out, fields)
		}
		return append([]string{}, out...)
	case key.Type == policy.TypeInteger:
		return v.GetInt32(key.Path)
	}
	return v.GetString(key.Path)
}

// pairs parts entries SUBNET=WORD into mappings of two fields; what is wrong with one is told when layers
// are merged.
func pairs(texts, fields []string) []map[string]string {
	out := make([]map[string]string, len(texts))
	for i, text := range texts {
		subnet, word, _ := strings.Cut(text, "=")
		out[i] = map[string]string{fields[0]: subnet, fields[1]: word}
	}
	return out
}

// plant puts value at a dotted path of nested maps.
func plant(tree map[string]any, path string, value any) {
	section, rest, nested := strings.Cut(path, ".")
	if !nested {
		tree[section] = value
		return
	}
	sub, ok := tree[section].(map[string]any)
	if !ok {
		sub = map[string]any{}
		tree[section] = sub
	}
	plant(sub, rest, value)
}

func settings(tree map[string]any, out *v1alpha1.Settings) error {
	data, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, out)
}

// Sources are the inputs of [Layers] beside the files it finds itself.
type Sources struct {
	Flags, Environment v1alpha1.Settings
	// File is the file named with --config; "" for none. It must exist.
	File string
	// Kubeconfig is the kubeconfig's extension "culvert.dev", nil for none.
	Kubeconfig []byte
	// Policy is the team's, as the API server has it; nil for none.
	Policy *v1alpha1.Policy
}

// Layers returns all layers of settings, highest precedence first. Errors have exit code
// failure.Usage and name the file and line.
func Layers(s Sources) ([]policy.Layer, error) {
	flags, err := named(s.Flags, func(k policy.Key) string { return "--" + k.Flag })
	if err != nil {
		return nil, err
	}
	s.Flags.ProxyVia = withVNAT(s.Flags.ProxyVia, flags)
	environment, err := named(s.Environment, func(k policy.Key) string { return k.Env })
	if err != nil {
		return nil, err
	}
	layers := []policy.Layer{
		{Source: policy.SourceFlag, Name: "command line", Settings: s.Flags, Positions: flags},
		{Source: policy.SourceEnvironment, Name: "environment", Settings: s.Environment, Positions: environment},
	}
	if s.File != "" {
		layer, err := fileLayer(policy.SourceFile, s.File)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	if path, err := UserFile(); err == nil {
		layer, err := fileLayer(policy.SourceUserFile, path)
		if err == nil {
			layers = append(layers, layer)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if len(s.Kubeconfig) > 0 {
		layer, err := decode(policy.SourceKubeconfig, "kubeconfig extension "+v1alpha1.Group, s.Kubeconfig)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	if s.Policy != nil {
		name := "Policy " + s.Policy.Namespace + "/" + s.Policy.Name
		layers = append(layers, policy.Layer{Source: policy.SourcePolicy, Name: name, Settings: s.Policy.Spec})
	}
	return layers, nil
}

// UserFile is the path of the user's own configuration file, which need not exist.
func UserFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "culvert", "config.yaml"), nil
}

func fileLayer(source policy.Source, path string) (policy.Layer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return policy.Layer{}, failure.New(failure.Usage, fmt.Errorf("configuration: %w", err), "")
	}
	return decode(source, path, data)
}

func decode(source policy.Source, name string, data []byte) (policy.Layer, error) {
	settings, positions, err := policy.Decode(name, data)
	if err != nil {
		return policy.Layer{}, failure.New(failure.Usage, err, "nothing was changed; config.example.yaml shows every key")
	}
	return policy.Layer{Source: source, Name: name, Settings: settings, Positions: positions}, nil
}

// named returns the positions of the keys that s speaks of: what name calls each.
func named(s v1alpha1.Settings, name func(policy.Key) string) (policy.Positions, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var tree map[string]any // keys without a section, or sections
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	positions := policy.Positions{}
	for _, key := range ownKeys() {
		if planted(tree, key.Path) {
			positions[key.Path] = policy.Position{Name: name(key)}
		}
	}
	return positions, nil
}

// planted reports whether there is a value at a dotted path of nested maps.
func planted(tree map[string]any, path string) bool {
	section, rest, nested := strings.Cut(path, ".")
	if !nested {
		_, present := tree[section]
		return present
	}
	sub, ok := tree[section].(map[string]any)
	return ok && planted(sub, rest)
}
