package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/lib/pq"

	"observability-hub/lib/sysexits"
)

// Needs describes the requirements of a tool on its database, for hints. A field may
// be empty.
type Needs struct {
	Table  string // the name of the table
	Rights string // the privileges that the role needs on the table: SELECT, INSERT
	Make   string // how to create the table
	Slow   string // a possible cause of a statement that takes too long
}

// Failure adds an exit status and a hint to an error of the driver. The status is
// 78 (bad configuration) if the administrator must change something, else 69,
// because the next run may succeed. All kinds of errors are distinguished here.
func Failure(err error, needs Needs) error {
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e
	}
	if pe, ok := errors.AsType[*pq.Error](err); ok {
		code, hint := answer(pe, needs)
		event := "database_unavailable"
		if code == sysexits.Config {
			event = "database_refused"
		}
		return &sysexits.Error{Code: code, Event: event, Err: err, Hint: hint}
	}
	if hint := encryption(err); hint != "" {
		return sysexits.New(sysexits.Config, "database_refused", err).WithHint(hint)
	}
	code, hint := network(err)
	if code == sysexits.Config {
		return sysexits.New(code, "bad_configuration", err).WithHint(hint)
	}
	return sysexits.New(sysexits.Unavailable, "database_unavailable", err).WithHint(hint)
}

// answer returns the status and hint for an error that the server sent.
func answer(e *pq.Error, needs Needs) (code int, hint string) {
	switch e.Code {
	case "28P01":
		return sysexits.Config, "correct the password, or set one, in database_url, PGPASSWORD or the password file"
	case "28000":
		return sysexits.Config, authorization(e.Message)
	case "3D000":
		return sysexits.Config, "correct the database in database_url, or create it: createdb"
	case "42501":
		return sysexits.Config, privilege(e.Message, needs)
	case "42704":
		if strings.Contains(e.Message, "configuration parameter") {
			return sysexits.Config, "the server has no such parameter: take it out of database_url or PGOPTIONS"
		}
	case "22023":
		if strings.Contains(e.Message, "parameter") {
			return sysexits.Config, "correct the parameter in database_url or PGOPTIONS"
		}
	case "08P01": // from a pooler, when the session begins
		switch {
		case strings.Contains(e.Message, "startup parameter"):
			return sysexits.Config, "take the parameter out of database_url or PGOPTIONS, or add it to ignore_startup_parameters of pgbouncer"
		case strings.Contains(e.Message, "no such"), strings.Contains(e.Message, "does not exist"):
			return sysexits.Config, "pgbouncer does not know this database or user: check database_url, and [databases] and auth_file of pgbouncer"
		}
	case "25006":
		return sysexits.Unavailable, "the server is a standby or read-only: name the primary in database_url, or name several hosts and add target_session_attrs=read-write"
	case "53300":
		return sysexits.Unavailable, "the server has no free connection: wait, or raise max_connections, or the connection limit of the role or database"
	case "53100":
		return sysexits.Unavailable, "the server's disk is full: free space on it"
	case "57P03":
		return sysexits.Unavailable, "the server is starting up, shutting down or recovering: the next run tries again"
	case "57P01", "57P02":
		return sysexits.Unavailable, "the server ended the session, for example because it restarted: the next run tries again"
	case "57014":
		return sysexits.Unavailable, strings.TrimSuffix("the statement took longer than --timeout; "+needs.Slow, "; ")
	case "55P03":
		return sysexits.Unavailable, "another session holds a lock on the table: SELECT * FROM pg_stat_activity on the server shows it"
	}
	switch Class(e) {
	case "28":
		return sysexits.Config, "check database_url, and pg_hba.conf on the server"
	case "3F", "42": // a missing schema or table, or another table of that name
		return sysexits.Config, needs.Make
	}
	return sysexits.Unavailable, "the server answers but cannot do this now: see the server's log"
}

// authorization returns the hint for a session that the server does not allow. It
// reads the server's message, which is English unless lc_messages is set.
func authorization(message string) string {
	switch {
	case strings.Contains(message, "Peer authentication"), strings.Contains(message, "Ident authentication"):
		return "the server requires the system user of that name: run the tool as that user (hub-run UNIT COMMAND runs it as the user of a unit), or use host=localhost and a password"
	case strings.Contains(message, "pg_hba.conf") && (strings.Contains(message, "no encryption") || strings.Contains(message, "SSL off")):
		return "pg_hba.conf on the server has no line for this user, database and address without TLS: add one, or set sslmode=verify-full"
	case strings.Contains(message, "pg_hba.conf"):
		return "pg_hba.conf on the server has no line for this user, database and address: add one, then SELECT pg_reload_conf()"
	case strings.Contains(message, "not permitted to log in"):
		return "as a superuser: ALTER ROLE … LOGIN"
	case strings.Contains(message, "does not exist"):
		if os.Geteuid() == 0 && strings.Contains(message, `"root"`) {
			return "root has no role: run the tool as the user of the unit with hub-run UNIT COMMAND, or name a user in database_url"
		}
		return "the server has no such role: correct the user in database_url, or create the role: createuser"
	case strings.Contains(message, "certificate"):
		return "the server requires a client certificate: set sslcert and sslkey to its files"
	}
	return "check the user in database_url, and pg_hba.conf on the server"
}

// privilege returns the hint for a missing privilege.
func privilege(message string, needs Needs) string {
	// permission denied for table system_metrics
	_, object, _ := strings.Cut(message, "permission denied for ")
	kind, name, _ := strings.Cut(object, " ")
	const to = " TO the role of database_url"
	switch {
	case kind == "table" && name == needs.Table:
		return "as the owner of the table: GRANT " + needs.Rights + " ON " + name + to
	case kind == "table", kind == "relation", kind == "view":
		return "as its owner: GRANT " + needs.Rights + " ON " + name + to
	case kind == "sequence":
		return "as its owner: GRANT USAGE ON SEQUENCE " + name + to
	case kind == "schema":
		return "GRANT USAGE ON SCHEMA " + name + to + "; and GRANT CREATE, if the table must be created; " + needs.Make
	case kind == "database", strings.Contains(message, "permission denied to set"):
		return "GRANT CONNECT ON DATABASE …" + to
	case strings.Contains(message, "temporary tables"):
		return "GRANT TEMPORARY ON DATABASE …" + to
	case strings.Contains(message, "must be owner of"):
		return "only the owner of the table can create and drop its partitions: ALTER TABLE " + needs.Table + " OWNER TO the role of database_url, or run this as the owner"
	}
	return "the role needs " + needs.Rights + " on " + needs.Table + ": GRANT them as the owner of the table"
}

// encryption returns the hint for an error of TLS, and "" for other errors.
func encryption(err error) string {
	if errors.Is(err, pq.ErrSSLNotSupported) {
		return "the server has no TLS: set ssl = on there, or sslmode=disable here if you trust the network between the hosts"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "this host does not trust the authority of the server's certificate: set sslrootcert= to the authority's file"
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := strings.Join(e.Certificate.DNSNames, ", ")
		if names == "" {
			names = e.Certificate.Subject.CommonName
		}
		return "the certificate is for " + names + ": use that name as host= (and the address as hostaddr=), or sslmode=verify-ca"
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "renew the server's certificate, and check the clocks of both hosts"
	}
	if errors.Is(err, pq.ErrSSLKeyHasWorldPermissions) {
		return "chmod 0600 the file that sslkey names"
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return "the server refused the client's certificate or TLS version: check sslcert, sslkey and ssl_min_protocol_version"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the program at that port does not speak TLS: check the port, and sslnegotiation="
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok || strings.Contains(err.Error(), "pem from sslrootcert") || strings.Contains(err.Error(), "tls: failed to find") || strings.Contains(err.Error(), "tls: private key") {
		return "check the files that sslrootcert, sslcert and sslkey name: they must be PEM files that the user of this run can read"
	}
	return ""
}

// network returns the status and hint for a server that cannot be reached.
func network(err error) (code int, hint string) {
	code = sysexits.Unavailable
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return code, "no such host: check host in database_url, and the name servers"
		}
		return code, "the name servers do not answer: check /etc/resolv.conf and the network"
	}
	timeout, _ := errors.AsType[net.Error](err)
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return code, "nothing listens there: start PostgreSQL, or correct the host and port in database_url or PGHOST and PGPORT"
	case errors.Is(err, syscall.ENOENT):
		return code, "there is no such socket: start PostgreSQL, or set host= in database_url to the directory of its socket, or to localhost"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return sysexits.Config, "the user of this run is not allowed to use that socket or network: check the permissions of the socket, and the sandbox of the unit"
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return code, "no answer in time: check for a firewall, a busy server or a lock; --timeout and connect_timeout limit the wait"
	case strings.Contains(text, "hot standby"), strings.Contains(text, "session is"):
		return code, "no host has the role that target_session_attrs asks for"
	}
	return code, "check that PostgreSQL is running, and that database_url or PGHOST and PGPORT name its host and port"
}

// Class returns the first two characters of the SQLSTATE.
func Class(e *pq.Error) string { return string(e.Code)[:min(2, len(e.Code))] }
