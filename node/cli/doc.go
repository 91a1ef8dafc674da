// Package cli is the command line of culvert: flags, help, what people read, exit codes. The work is
// done elsewhere; a command here turns flags into a request and an answer into text or JSON.
package cli
