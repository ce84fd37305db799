//go:build !faults

package main

// step marks a boundary between two steps that change something. If the process
// is killed there, the next run must be able to repair what is left. In a build
// with the tag faults, step can kill the process; see fault_on.go.
func step(string) {}
