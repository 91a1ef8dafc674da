package agents

import (
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
)

// Phase is how far a Keeper is.
//
//	          ┌───────────────── lost ──────────────────┐
//	          ▼                                         │
//	idle ─► seeking ─► placing ─► enrolling ─► up ──────┤
//	          ▲  │        │           │                 │ lost so soon that another
//	          │  └────────┴───────────┴──► waiting ◄────┘ would probably fare no better
//	          └───────────────────────────────┘
//	any ─► closed, which is final
type Phase string

// The phases.
const (
	Idle      Phase = "idle"      // Run has not begun
	Seeking   Phase = "seeking"   // for the workload and a pod of it
	Placing   Phase = "placing"   // an agent into the pod, until its container runs
	Enrolling Phase = "enrolling" // until the agent has answered
	Up        Phase = "up"        // the agent serves this node
	Waiting   Phase = "waiting"   // to try again
	Closed    Phase = "closed"    // Run has ended
)

// State is how a Keeper stands. It is a snapshot that nobody changes.
type State struct {
	// Workload is what is looked for; with namespace and kind as soon as it was found once.
	Workload policy.Workload
	Phase    Phase
	// Since is when Phase was entered; zero while Idle.
	Since time.Time
	// Doing says more about Placing, in words for people; "" else.
	Doing string
	// Agent and Key are the agent that serves this node while Up. In other phases they are those of the last one,
	// which may serve a few seconds longer; zero before the first.
	Agent kube.Agent
	Key   wgtypes.Key
	// Twins are those that the agent has taken up. Not to be changed.
	Twins []enrol.Twin
	// Err is what is in the way, a [failure.Failure] in its chain where there is something to be done; while Up,
	// why it is not certain that the agent still serves or has taken up the latest twins. Nil if all is well.
	Err error
	// Final is set if waiting alone will hardly cure Err: somebody has to do something. It is tried again, but seldom.
	Final bool
	// Attempts counts those that failed since an agent was last up.
	Attempts int
}
