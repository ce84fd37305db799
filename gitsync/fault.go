//go:build !faults

package main

// step marks a boundary between two steps that change something: the places
// where a kill must leave what the next run repairs. In a build with the tag
// faults it can be made to kill the process; see fault_on.go.
func step(string) {}
