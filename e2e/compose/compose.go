// Package compose pins the docker compose that the tests of gitsync's on-change commands run: go build of
// github.com/docker/compose/v2/cmd, in this directory and with GOWORK=off, makes Docker's CLI plug-in.
//
// It is a separate module outside of the workspace, because docker compose has hundreds of dependencies that nothing else needs.
package compose

// The packages of the program.
import _ "github.com/docker/compose/v2/cmd/compose"
