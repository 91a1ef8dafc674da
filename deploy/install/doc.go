// Package install puts the gateway into a cluster, brings it up to date, takes it out and reports on
// it: `culvert gateway install|upgrade|uninstall|status`. It applies the embedded chart with Helm's
// SDK and the custom resource definitions by server-side apply, since Helm never upgrades those.
//
//	values ──► check (schema, settings, rights) ──► CRDs ──► namespace ──► release ──► wait for the pod
//
// Everything that can be known beforehand is checked before the first change. The state it owns is
// Helm's: the release Secrets in the gateway's namespace. Helm and its dependencies are linked here
// and in the commands of deploy/cmd alone, never into the programs that keep running.
package install
