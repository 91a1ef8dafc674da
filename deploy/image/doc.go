// Package image writes a container image without a container engine: a docker-archive tar
// (manifest.json, config, one layer) from one static binary. Docker, containerd (`ctr images
// import`), podman and skopeo read that form.
//
// The same binary, tag and options give the same bytes, so an image can be compared and cached by
// its digest. The package reads the binary it is given and writes one stream; it keeps no state.
package image
