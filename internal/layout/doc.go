// Package layout holds no code: its tests keep the shape of the repository. They check which part
// may import which, each rule with its reason, and that every package says what it is for.
package layout
