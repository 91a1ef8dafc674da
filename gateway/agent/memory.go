package agent

import (
	"fmt"
	"runtime/metrics"
)

// checkMemory returns an error when the process has taken more than limit bytes; 0 is no limit. The agent is a guest
// and goes before the pod comes to harm: an ephemeral container has no limit of its own that the kernel would keep.
func checkMemory(limit uint64) error {
	if limit == 0 {
		return nil
	}
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	if taken := sample[0].Value.Uint64() - sample[1].Value.Uint64(); taken > limit {
		return fmt.Errorf("%d MiB of memory in use, more than the %d MiB that an agent may take from its pod", taken>>20, limit>>20)
	}
	return nil
}
