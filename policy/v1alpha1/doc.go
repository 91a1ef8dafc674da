// Package v1alpha1 holds the types of the API group culvert.dev, version v1alpha1: [Peer], one per
// connection of a workstation, and [Policy], the settings a team shares.
//
// The same [Settings] schema is used in the cluster, in configuration files and in the kubeconfig
// extension "culvert.dev". Addresses and durations are strings here, as they travel; package policy
// parses and checks them. The package depends on apimachinery's meta/v1 and nothing else of
// Kubernetes, and it has no behaviour.
package v1alpha1
