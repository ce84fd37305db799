package main

import (
	"testing"

	"observability-hub/lib/mantest"
)

func TestManPageFlags(t *testing.T) { mantest.Flags(t, app) }

func TestManPageExitStatuses(t *testing.T) { mantest.ExitStatuses(t, app()) }
