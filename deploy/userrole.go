package deploy

import (
	_ "embed"
	"fmt"
	"strings"
)

// UserRoleName is the Role of those who connect workstations. The chart creates it in the gateway's
// namespace and binds it to the chart value `users`.
const UserRoleName = "culvert-user"

//go:embed chart/culvert/files/user-rules.yaml
var userRules string

// AgentRoleName is the Role of those who reach subnets through workloads of a namespace.
const AgentRoleName = "culvert-agent-user"

//go:embed agent-rules.yaml
var agentRules string

// UserRole returns, as YAML, the Role that `culvert connect` needs in the gateway's namespace: what
// an error message about a missing right can ask for. The chart renders the same rules.
func UserRole(namespace string) string { return roleText(UserRoleName, namespace, userRules) }

// AgentRole returns, as YAML, the Role that an agent in a workload takes in the workload's namespace.
// The chart knows nothing of such namespaces, so an administrator applies it there.
func AgentRole(namespace string) string { return roleText(AgentRoleName, namespace, agentRules) }

func roleText(name, namespace, rules string) string {
	rules = "  " + strings.ReplaceAll(strings.TrimSpace(rules), "\n", "\n  ")
	return fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n"+
		"metadata:\n  name: %s\n  namespace: %s\nrules:\n%s\n", name, namespace, rules)
}
