// Package hostdns hooks Culvert's resolver up to the host's own resolver configuration, and puts
// that back.
//
// It knows one way so far, the file /etc/resolv.conf:
//
//	original ──Take──► Record (journaled by the caller) ──Hook──► our file, marker in its first line
//	    ▲                                                             │
//	    └──────────────── Restore, only while the marker is there ◄───┘
//
// While hooked, our resolver is the file's only nameserver and the servers the host had are its
// upstreams. Another program that rewrites the file is noticed by [Manager.Check]: what it wrote
// becomes the new original and the new upstreams, and the file is hooked again, with a limit on how
// often. When Culvert leaves, what another program wrote stays as it is.
//
// Several connections stack: the marker lists them, top first, and each has the one below it for its
// upstream. A connection further down that leaves does not touch the file; the one above takes over
// what that one found, with [Manager.Check]. The top one puts back the file of the first connection below
// it that still runs, or the original. One that crashed, and was not restored, counts as one that left.
//
// The package owns nothing but the file. It keeps no state on disk; callers journal the [Record]
// before [Manager] changes anything, so that a restore after a crash needs that record alone.
package hostdns
