// Package e2e holds scenarios on a real cluster with a real VPN, both in network namespaces of this
// machine (scripts/lab). They are selected by the build tag lab, need root, and are run by
// `make test-lab`, which builds what they use.
//
//	ws (culvert, VPN client) ── router ── vpn ── corp, node1 (API server, gateway pod, echo)
//
// One lab serves all scenarios, brought up by the first test that needs it; every scenario compares
// `lab snapshot ws` before and after. CULVERT_E2E_LAB names a lab that is up already; it is kept. The
// scenarios of both families have a second, small lab; CULVERT_E2E_LAB6 names one for them. So does the
// scenario of two clusters at once, whose workstation is the first lab's; CULVERT_E2E_LABFAR names that.
package e2e
