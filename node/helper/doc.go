// Package helper is the privileged half of a connection: the root process that changes the host's
// network for a user half without privileges, and undoes the changes when either of them ends.
//
//	culvert connect (root) ─Launch─► helper (root) ◄──socketpair──► user half (the invoking user)
//	                                   │  ▲                           TUN, :53 and UAPI sockets
//	                                   │  └─ starts another            come over it as descriptors
//	                                   └─pipe─► guard (root): when the pipe closes, restores
//
// [Run] is the helper's loop. It takes nothing on trust: every request is checked against the form and
// against [Limits], which root alone can widen. Before each kind of change it writes the journal
// (package journal); [Repair] undoes a journal with no other knowledge, and is what the guard, the
// next start and "culvert cleanup" run.
//
//	partner's socket closes, SIGTERM, SIGINT  ─► helper restores and ends
//	helper dies, however it dies              ─► guard restores and ends; the user half sees its socket close
//	guard dies                                ─► helper starts another
//	all die at once                           ─► next start or "culvert cleanup" repairs
//
// What other programs undo is put back as soon as the kernel tells of it, and compared from time to
// time should it not. With a program that keeps undoing it, or keeps moving its rules in front of
// ours, there is no war: the helper tries again now and then, and tells the user half of the fight's
// begin and end ([Contested]). [Client.Reset] ends the sockets that a prefix leaves behind which was
// taken from the tunnel.
//
// [Client.IPsec] reads for the user half what only root may read of what steers packets.
//
// A lock on a file in the run directory is held by helper and guard as long as one of them lives; it
// says whether a connection is running, and makes a second one of the same name impossible.
//
// [Client] is the user half's side of the socketpair, [Launch] is what starts all of this.
package helper
