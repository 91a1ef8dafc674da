package reach

import "net/netip"

// RouteTo asks the kernel where an ordinary packet of this user to a goes, now. It needs no privilege.
// Where that cannot be asked on this platform the error matches [errors.ErrUnsupported].
func RouteTo(a netip.Addr) (Route, error) {
	n, err := openNetwork()
	if err != nil {
		return Route{}, err
	}
	defer n.close()
	return n.route(a)
}
