// Package deploy carries what Culvert puts into a cluster: the Helm chart of the gateway, the custom
// resource definitions, and the Role a user needs. It only embeds and renders text; package
// deploy/install applies it, so that a program that names the Role in an error message does not
// link Helm.
package deploy
