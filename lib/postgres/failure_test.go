package postgres

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"observability-hub/lib/libpq"
	"observability-hub/lib/sysexits"
)

func TestFailure(t *testing.T) {
	needs := Needs{Table: "t", Rights: "SELECT, INSERT", Make: "run: make the table", Slow: "an index may be missing"}
	server := func(code, message string) error {
		return fmt.Errorf("insert: %w", &pq.Error{Code: pqerror.Code(code), Message: message})
	}
	for _, tc := range []struct {
		err  error
		code int
		hint string
	}{
		{server("28P01", "password authentication failed"), sysexits.Config, "password"},
		{server("28000", `no pg_hba.conf entry for host "::1", user "u", database "d", no encryption`), sysexits.Config, "sslmode=verify-full"},
		{server("28000", `no pg_hba.conf entry for host "::1", user "u", database "d", SSL encryption`), sysexits.Config, "add one"},
		{server("28000", `Peer authentication failed for user "u"`), sysexits.Config, "hub-run UNIT COMMAND"},
		{server("28000", `role "u" does not exist`), sysexits.Config, "createuser"},
		{server("28000", `role "u" is not permitted to log in`), sysexits.Config, "ALTER ROLE"},
		{server("3D000", `database "d" does not exist`), sysexits.Config, "createdb"},
		{server("42501", "permission denied for table t"), sysexits.Config, "GRANT SELECT, INSERT ON t TO"},
		{server("42501", "permission denied for schema public"), sysexits.Config, "GRANT USAGE ON SCHEMA public TO"},
		{server("42501", "permission denied for sequence t_id_seq"), sysexits.Config, "GRANT USAGE ON SEQUENCE t_id_seq TO"},
		{server("42501", `permission denied to create temporary tables in database "d"`), sysexits.Config, "GRANT TEMPORARY"},
		{server("42501", "must be owner of table t"), sysexits.Config, "OWNER TO"},
		{server("42501", "keine Berechtigung"), sysexits.Config, "SELECT, INSERT on t"},
		{server("42704", `unrecognized configuration parameter "keepalive"`), sysexits.Config, "take it out"},
		{server("22023", `invalid value for parameter "TimeZone": "x"`), sysexits.Config, "parameter"},
		{server("08P01", "unsupported startup parameter: options"), sysexits.Config, "ignore_startup_parameters"},
		{server("42P01", `relation "t" does not exist`), sysexits.Config, "make the table"},
		{server("42P10", "there is no unique or exclusion constraint"), sysexits.Config, "make the table"},
		{server("25006", "cannot execute INSERT in a read-only transaction"), sysexits.Unavailable, "target_session_attrs"},
		{server("53300", "sorry, too many clients already"), sysexits.Unavailable, "max_connections"},
		{server("53100", "could not extend file"), sysexits.Unavailable, "disk"},
		{server("57P03", "the database system is starting up"), sysexits.Unavailable, "starting up"},
		{server("57P01", "terminating connection"), sysexits.Unavailable, "next run"},
		{server("57014", "canceling statement due to statement timeout"), sysexits.Unavailable, "index"},
		{server("55P03", "canceling statement due to lock timeout"), sysexits.Unavailable, "lock"},
		{server("40P01", "deadlock detected"), sysexits.Unavailable, "log"},
		{server("", ""), sysexits.Unavailable, "log"},
		{pq.ErrSSLNotSupported, sysexits.Config, "sslmode=disable"},
		{x509.UnknownAuthorityError{}, sysexits.Config, "sslrootcert="},
		{x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"db.example.com"}}, Host: "h"}, sysexits.Config, "db.example.com"},
		{x509.CertificateInvalidError{Reason: x509.Expired}, sysexits.Config, "renew"},
		{&fs.PathError{Op: "open", Path: "/ca.pem", Err: syscall.ENOENT}, sysexits.Config, "sslrootcert"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, sysexits.Unavailable, "nothing listens"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENOENT)}, sysexits.Unavailable, "socket"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}, sysexits.Config, "not allowed"},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, sysexits.Unavailable, "in time"},
		{context.DeadlineExceeded, sysexits.Unavailable, "in time"},
		{&net.DNSError{IsNotFound: true}, sysexits.Unavailable, "no such host"},
		{errors.New("server is in hot standby mode"), sysexits.Unavailable, "target_session_attrs"},
		{errors.New("EOF"), sysexits.Unavailable, "PostgreSQL is running"},
		{libpq.BadConfiguration(errors.New("x")), sysexits.Config, "database_url"},
	} {
		e, ok := errors.AsType[*sysexits.Error](Failure(tc.err, needs))
		if !ok || e.Code != tc.code || !strings.Contains(e.Hint, tc.hint) || !errors.Is(e, tc.err) && e.Err != tc.err && e != tc.err {
			t.Errorf("Failure(%v) = %d, hint %q; want %d, %q", tc.err, e.Code, e.Hint, tc.code, tc.hint)
		}
	}
}

// With several hosts, one that may answer the next run decides the status.
func TestJoined(t *testing.T) {
	away := Failure(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, Needs{})
	refused := Failure(pq.ErrSSLNotSupported, Needs{})
	if got := sysexits.Code(joined([]error{refused, away})); got != sysexits.Unavailable {
		t.Errorf("refused, away: status %d; want 69", got)
	}
	if got := sysexits.Code(joined([]error{refused, refused})); got != sysexits.Config {
		t.Errorf("refused twice: status %d; want 78", got)
	}
}
