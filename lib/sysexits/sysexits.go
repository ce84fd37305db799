// Package sysexits holds the exit statuses of the toolkit and an error that
// carries one.
//
// The numbers are those of sysexits(3), which "systemd-analyze exit-status" can
// name, and two numbers of this toolkit: [RolledBack] and [Partial].
package sysexits

import "errors"

// Exit statuses. docs/architecture.md says what each means to an administrator.
const (
	OK          = 0
	Failed      = 1
	RolledBack  = 10 // gitsync: the commit was applied, was unhealthy, and was rolled back
	Partial     = 11 // some items failed, the others are safe
	Usage       = 64 // EX_USAGE: the command line is wrong
	DataErr     = 65 // EX_DATAERR: bad input was rejected
	Unavailable = 69 // EX_UNAVAILABLE: a peer (database, proxy, Docker, Git remote) does not answer
	CantCreate  = 73 // EX_CANTCREAT: output or state cannot be written
	TempFail    = 75 // EX_TEMPFAIL: try later; another run holds the lock
	Config      = 78 // EX_CONFIG: bad configuration
)

// Error is an error with an exit status, the event name of the diagnostic that
// reports it (snake_case, listed in docs/events.md), and optionally a hint: what
// the administrator can do next.
type Error struct {
	Code  int
	Event string
	Err   error
	Hint  string
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// New returns err with an exit status and an event name.
func New(code int, event string, err error) *Error {
	return &Error{Code: code, Event: event, Err: err}
}

// WithHint sets the hint and returns e.
func (e *Error) WithHint(hint string) *Error {
	e.Hint = hint
	return e
}

// Code returns the exit status of err. It returns 0 for nil, and [Failed] for an
// error that carries no status.
func Code(err error) int {
	if err == nil {
		return OK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Failed
}
