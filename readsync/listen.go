package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"observability-hub/lib/sysexits"
)

// firstPassed is the first descriptor that systemd passes, see sd_listen_fds(3).
const firstPassed = 3

// passedListeners returns the sockets that systemd has passed to this process,
// none if it has passed none. Programs that this one starts are not told of them.
func passedListeners() ([]net.Listener, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(v); err != nil {
			return nil, err
		}
	}
	// Passed to a parent that did not take them away, they are not ours.
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > 64 {
		return nil, cannotListen(errors.New("$LISTEN_FDS is not a number of sockets"))
	}
	var listeners []net.Listener
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		l, err := passedListener(fd)
		if err != nil {
			return nil, cannotListen(fmt.Errorf("descriptor %d from systemd: %w", fd, err))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func passedListener(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "systemd-socket-"+strconv.Itoa(fd))
	defer f.Close() // the listener has one of its own
	listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if listening == 0 {
		return nil, errors.New("not a listening socket: the socket unit needs Accept=no")
	}
	return net.FileListener(f)
}

// listen opens a socket of one's own.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, cannotListen(err)
	}
	return l, nil
}

func cannotListen(err error) error {
	return sysexits.New(sysexits.Config, "cannot_listen", err).
		WithHint("a Proxy Service may have the address already, then trigger calls that; else give --listen another one")
}
