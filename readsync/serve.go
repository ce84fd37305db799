package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
)

// serveCmd replaces a Proxy Service on hosts without one. It answers one call, on the
// connection that systemd passes as stdin (Accept=yes).
type serveCmd struct {
	peerFlags
	letterFlags
	datesFlag
	AllowHost []string `placeholder:"NAME"`
}

func (s *serveCmd) Validate() error {
	return errors.Join(s.peerFlags.Validate(), s.letterFlags.Validate())
}

// Run answers the call. After SIGTERM it succeeds, unless the sync could not sync or mark
// all documents.
func (s *serveCmd) Run(ctx context.Context, env *cli.Env) error {
	c, err := passedCall()
	if err != nil {
		return err
	}
	e := &endpoint{env: env, hosts: s.AllowHost, sync: func(ctx context.Context) (int64, error) {
		run := &runCmd{peerFlags: s.peerFlags, letterFlags: s.letterFlags, datesFlag: s.datesFlag}
		a, err := run.sync(ctx, env)
		return a.inserted + a.identical + a.replaced, err
	}}
	e.stopping = ctx
	return e.verdict(c.serve(ctx, e))
}

// Limits of one call. The sync itself has no time limit.
const (
	readWait   = 10 * time.Second
	writeWait  = 10 * time.Second
	lingerWait = 2 * time.Second
	maxHeader  = 16 << 10
)

// call is the connection of one caller.
type call struct {
	in  io.Reader
	out io.Writer
	tcp *net.TCPConn // nil for other sockets and for pipes
}

// passedCall returns the call on stdin. If stdin is a socket, the answer is written
// to it. Otherwise the answer is written to stdout. In that case, and if inetd made
// stdout the same socket as stdin, passedCall redirects stdout to stderr, because
// records must not mix with the answer.
func passedCall() (*call, error) {
	var in, out syscall.Stat_t
	if err := errors.Join(syscall.Fstat(0, &in), syscall.Fstat(1, &out)); err != nil {
		return nil, fmt.Errorf("stat stdin and stdout: %w", err)
	}
	kind := in.Mode & syscall.S_IFMT
	if kind != syscall.S_IFSOCK && kind != syscall.S_IFIFO && kind != syscall.S_IFREG {
		return nil, sysexits.New(sysexits.Usage, "usage", errors.New("serve answers one HTTP request on stdin, and stdin is neither a socket, nor a pipe, nor a file")).
			WithHint("systemctl enable --now reading-sync-api.socket; or by hand: systemd-socket-activate --accept --inetd -l 127.0.0.1:8085 readsync serve")
	}
	if listening, err := syscall.GetsockoptInt(0, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); kind == syscall.S_IFSOCK && err == nil && listening == 1 {
		return nil, sysexits.New(sysexits.Config, "bad_configuration", errors.New("stdin is a listening socket, not a connection")).
			WithHint("the socket unit needs Accept=yes, and the service must be a template: reading-sync-api@.service")
	}
	c := &call{in: os.Stdin, out: os.Stdin}
	if same := in.Dev == out.Dev && in.Ino == out.Ino; same || kind != syscall.S_IFSOCK {
		fd, err := syscall.Dup(1)
		if err == nil {
			syscall.CloseOnExec(fd)
			err = syscall.Dup3(2, 1, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("duplicate stdout: %w", err)
		}
		c.out = os.NewFile(uintptr(fd), "answer")
	}
	if kind == syscall.S_IFSOCK {
		conn, err := net.FileConn(os.Stdin)
		if err != nil {
			return nil, fmt.Errorf("stdin: %w", err)
		}
		c.in, c.out = conn, conn
		c.tcp, _ = conn.(*net.TCPConn)
	}
	return c, nil
}

// serve reads the request, lets e handle it, and writes the answer. A caller that
// sends nothing gets no answer. delivered reports whether the answer could be sent.
func (c *call) serve(ctx context.Context, e *endpoint) (delivered bool) {
	limited := &io.LimitedReader{R: c.in, N: maxHeader}
	in := bufio.NewReader(limited)
	request, err := c.read(ctx, in)
	answer := &reply{header: http.Header{}}
	switch {
	case ctx.Err() != nil || errors.Is(err, io.EOF):
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.refuse(answer, http.StatusRequestTimeout, "the request did not end in time")
	case err != nil && limited.N <= 0:
		e.refuse(answer, http.StatusRequestHeaderFieldsTooLarge, "the header of the request is too large")
	case err != nil, request.ProtoAtLeast(1, 1) && request.Host == "":
		e.refuse(answer, http.StatusBadRequest, "not an HTTP request")
	default:
		limited.N = 2 * maxRequest // the endpoint enforces the limit of the body
		if request.Header.Get("Expect") == "100-continue" {
			_, _ = io.WriteString(c.out, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		request.Body = io.NopCloser(&deadlineReader{request.Body, time.Now().Add(readWait)})
		e.ServeHTTP(answer, request)
	}
	return c.write(answer, request)
}

// read reads the header of the request.
func (c *call) read(ctx context.Context, in *bufio.Reader) (*http.Request, error) {
	type result struct {
		request *http.Request
		err     error
	}
	done := make(chan result, 1)
	go func() {
		request, err := http.ReadRequest(in)
		done <- result{request, err}
	}()
	select {
	case r := <-done:
		return r.request, r.err
	case <-time.After(readWait): // pipes and files have no read deadline
		return nil, os.ErrDeadlineExceeded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// deadlineReader is a reader that fails after the time until.
type deadlineReader struct {
	r     io.Reader
	until time.Time
}

func (t *deadlineReader) Read(p []byte) (n int, err error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	part := make([]byte, len(p))
	go func() {
		n, err := t.r.Read(part)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, part[:r.n]), r.err
	case <-time.After(time.Until(t.until)):
		return 0, os.ErrDeadlineExceeded
	}
}

// write writes the answer and reports whether it succeeded. The caller may have
// disconnected.
func (c *call) write(answer *reply, request *http.Request) bool {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", answer.status, http.StatusText(answer.status))
	answer.header.Set("Content-Length", fmt.Sprint(answer.body.Len()))
	answer.header.Set("Connection", "close")
	answer.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	_ = answer.header.Write(&head)
	head.WriteString("\r\n")
	if request == nil || request.Method != http.MethodHead {
		head.Write(answer.body.Bytes())
	}
	if conn, ok := c.out.(net.Conn); ok {
		_ = conn.SetWriteDeadline(time.Now().Add(writeWait))
	}
	_, err := c.out.Write(head.Bytes())
	if c.tcp != nil {
		// If the caller still sends data, the kernel resets the connection, and the
		// caller may lose the answer. Read that data first.
		_ = c.tcp.CloseWrite()
		_ = c.tcp.SetReadDeadline(time.Now().Add(lingerWait))
		if _, readErr := io.Copy(io.Discard, io.LimitReader(c.tcp, 1<<20)); errors.Is(readErr, syscall.ECONNRESET) {
			err = readErr // the caller had closed the connection before the answer came
		}
		err = errors.Join(err, pending(c.tcp))
	}
	return err == nil
}

// pending returns the error of a connection that no call has returned yet. If the
// caller closed it in good order before the answer came, then writing succeeded,
// reading finds the end, and only this tells that the answer was refused.
func pending(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var option int
	var asked error
	if err := raw.Control(func(fd uintptr) { option, asked = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR) }); err != nil {
		return err
	}
	if option != 0 {
		return syscall.Errno(option)
	}
	return asked
}

// reply is an http.ResponseWriter that holds the answer until it is sent.
type reply struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *reply) Header() http.Header         { return r.header }
func (r *reply) WriteHeader(status int)      { r.status = status }
func (r *reply) Write(p []byte) (int, error) { return r.body.Write(p) }
