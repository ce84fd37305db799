package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/lib/pq"

	"observability-hub/lib/sysexits"
)

// Needs says what a tool needs of its database, for hints. Each is what to do
// about it, or empty.
type Needs struct {
	Table  string // the table, by name
	Rights string // what its role needs on the table: SELECT, INSERT
	Make   string // how the table is made
	Slow   string // what a statement that takes too long may lack
}

// Failure gives an error of the driver its exit status and a hint. What the
// administrator must change is bad configuration (78), everything else may be
// over by the next run (69). It is the one place that knows the kinds.
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

// answer is about an error that the server sent.
func answer(e *pq.Error, needs Needs) (code int, hint string) {
	switch e.Code {
	case "28P01":
		return sysexits.Config, "the password is wrong, or none is given: check database_url, PGPASSWORD or the password file"
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
	case "08P01": // of a pooler, at the beginning
		switch {
		case strings.Contains(e.Message, "startup parameter"):
			return sysexits.Config, "take the parameter out of database_url or PGOPTIONS, or add it to ignore_startup_parameters of pgbouncer"
		case strings.Contains(e.Message, "no such"), strings.Contains(e.Message, "does not exist"):
			return sysexits.Config, "pgbouncer does not know this database or user: check database_url, and [databases] and auth_file of pgbouncer"
		}
	case "25006":
		return sysexits.Unavailable, "the server is a standby or read-only: name the primary in database_url, or several hosts and target_session_attrs=read-write"
	case "53300":
		return sysexits.Unavailable, "the server has no free connection: wait, or raise max_connections, or the connection limit of the role or database"
	case "53100":
		return sysexits.Unavailable, "the server's disk is full"
	case "57P03":
		return sysexits.Unavailable, "the server is starting up, shutting down or recovering: the next run tries again"
	case "57P01", "57P02":
		return sysexits.Unavailable, "the server ended the session, as a restart does: the next run tries again"
	case "57014":
		return sysexits.Unavailable, strings.TrimSuffix("the statement took longer than --timeout; "+needs.Slow, "; ")
	case "55P03":
		return sysexits.Unavailable, "another session locks the table: pg_stat_activity shows it"
	}
	switch Class(e) {
	case "28":
		return sysexits.Config, "check database_url, and pg_hba.conf on the server"
	case "3F", "42": // no schema, no table, another table of that name
		return sysexits.Config, needs.Make
	}
	return sysexits.Unavailable, "the server is there and cannot do it now; its own log says more"
}

// authorization is about a session that the server does not allow. The text of
// the server is English but for servers with lc_messages of their own.
func authorization(message string) string {
	switch {
	case strings.Contains(message, "Peer authentication"), strings.Contains(message, "Ident authentication"):
		return "the server asks for the system user of that name: run the tool as that user (runuser -u), or use host=localhost and a password"
	case strings.Contains(message, "pg_hba.conf") && (strings.Contains(message, "no encryption") || strings.Contains(message, "SSL off")):
		return "pg_hba.conf on the server has no line for this user, database and address without TLS: add one, or say sslmode=verify-full"
	case strings.Contains(message, "pg_hba.conf"):
		return "pg_hba.conf on the server has no line for this user, database and address: add one, then SELECT pg_reload_conf()"
	case strings.Contains(message, "not permitted to log in"):
		return "as a superuser: ALTER ROLE … LOGIN"
	case strings.Contains(message, "does not exist"):
		return "the server has no such role: correct the user in database_url, or create the role: createuser"
	case strings.Contains(message, "certificate"):
		return "the server wants a client certificate: sslcert and sslkey name its files"
	}
	return "check the user in database_url, and pg_hba.conf on the server"
}

// privilege says which right is missing, on what.
func privilege(message string, needs Needs) string {
	// permission denied for table system_metrics
	_, object, _ := strings.Cut(message, "permission denied for ")
	kind, name, _ := strings.Cut(object, " ")
	const to = " TO the role of database_url"
	switch {
	case kind == "table" && name == needs.Table:
		return "as the owner of the table: GRANT " + needs.Rights + " ON " + name + to
	case kind == "table", kind == "relation", kind == "view":
		return "as the owner of it: GRANT " + needs.Rights + " ON " + name + to
	case kind == "sequence":
		return "as the owner of it: GRANT USAGE ON SEQUENCE " + name + to
	case kind == "schema":
		return "GRANT USAGE ON SCHEMA " + name + to + "; and CREATE, if the table is to be made; " + needs.Make
	case kind == "database", strings.Contains(message, "permission denied to set"):
		return "GRANT CONNECT ON DATABASE …" + to
	case strings.Contains(message, "temporary tables"):
		return "GRANT TEMPORARY ON DATABASE …" + to
	case strings.Contains(message, "must be owner of"):
		return "only the owner of the table makes and drops its partitions: ALTER TABLE " + needs.Table + " OWNER TO the role of database_url, or run this as the owner"
	}
	return "the role needs " + needs.Rights + " on " + needs.Table + ": GRANT them as its owner"
}

// encryption is about TLS; it is empty for other errors.
func encryption(err error) string {
	if errors.Is(err, pq.ErrSSLNotSupported) {
		return "the server has no TLS: set ssl = on there, or say sslmode=disable if the network in between is trusted"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the server's certificate is of an authority that this host does not trust: give the authority's file as sslrootcert="
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
		return "what listens there does not speak TLS: check the port, and sslnegotiation="
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok || strings.Contains(err.Error(), "pem from sslrootcert") || strings.Contains(err.Error(), "tls: failed to find") || strings.Contains(err.Error(), "tls: private key") {
		return "check the files that sslrootcert, sslcert and sslkey name: they must be PEM, and readable for the user of this run"
	}
	return ""
}

// network is about a server that cannot be reached.
func network(err error) (code int, hint string) {
	code = sysexits.Unavailable
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return code, "no such host: check host in database_url, and the name servers"
		}
		return code, "the name servers do not answer"
	}
	timeout, _ := errors.AsType[net.Error](err)
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return code, "nothing listens there: is PostgreSQL up, and is it where database_url or PGHOST and PGPORT say?"
	case errors.Is(err, syscall.ENOENT):
		return code, "there is no such socket: is PostgreSQL up, and is this its directory? host= in database_url names another, or localhost"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return sysexits.Config, "the user of this run is not allowed to use that socket or network"
	case errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		return code, "no answer in time: a firewall, a server under load, or a lock; --timeout and connect_timeout bound the wait"
	case strings.Contains(text, "hot standby"), strings.Contains(text, "session is"):
		return code, "no host is what target_session_attrs asks for"
	}
	return code, "is PostgreSQL up, and is it where database_url or PGHOST and PGPORT say?"
}

// Class returns the first two characters of the SQLSTATE.
func Class(e *pq.Error) string { return string(e.Code)[:min(2, len(e.Code))] }
