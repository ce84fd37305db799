package mongopeer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/address"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/description"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"observability-hub/lib/sysexits"
)

func answer(code int32, message string) error {
	return mongo.CommandError{Code: code, Message: message}
}

// unreachable returns the error of a deployment with one server that was tried.
func unreachable(kind description.TopologyKind, host string, cause error) error {
	return topology.ServerSelectionError{Wrapped: errors.New("server selection timeout"), Desc: description.Topology{Kind: kind,
		Servers: []description.Server{{Addr: address.Address(host), LastError: cause}}}}
}

// Each error has an exit status that says whether a retry makes sense, and a hint that
// says what to do.
func TestFault(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errors.New("connection refused"))}
	for name, tc := range map[string]struct {
		err    error
		tls    bool
		status int
		hint   string
	}{
		"wrong password":        {answer(18, "Authentication failed."), false, sysexits.Config, "authSource"},
		"no privilege":          {answer(13, "not authorized"), false, sysexits.Config, "find and update in hub.readings"},
		"no privilege at Atlas": {answer(8000, "user is not allowed"), false, sysexits.Config, "find and update"},
		"a view":                {answer(166, "on a view"), false, sysexits.Config, "not a view"},
		"an option of a view":   {answer(72, "not supported on a view"), false, sysexits.Config, "not a view"},
		"another option":        {answer(72, "Cannot use this"), false, sysexits.Unavailable, "read the log of MongoDB"},
		"no such name":          {answer(73, "Invalid namespace"), false, sysexits.Config, "MONGO_DB_NAME"},
		"timeout of the server": {answer(50, "operation exceeded time limit"), false, sysexits.Unavailable, "--timeout 1m0s"},
		"timeout of readsync":   {context.DeadlineExceeded, false, sysexits.Unavailable, "{status: 1, _id: 1}"},
		"no primary":            {answer(10107, "not primary"), false, sysexits.Unavailable, "changing its primary"},
		"another answer":        {answer(1, "oh"), false, sysexits.Unavailable, "read the log of MongoDB"},
		"an old server":         {errors.New("server at h reports wire version 7"), false, sysexits.Config, "4.4"},
		"a lost connection":     {io.ErrUnexpectedEOF, false, sysexits.Unavailable, "was lost"},
		"nothing listens":       {unreachable(description.Unknown, "h:27017", refused), false, sysexits.Unavailable, "listens on the address"},
		"no such host":          {unreachable(description.Unknown, "h:27017", &net.DNSError{Name: "h", IsNotFound: true}), false, sysexits.Unavailable, "name server"},
		"a foreign certificate": {unreachable(description.Unknown, "h:27017", x509.UnknownAuthorityError{}), true, sysexits.Config, "tlsCAFile"},
		"a server without TLS":  {unreachable(description.Unknown, "h:27017", tls.RecordHeaderError{Msg: "first record"}), true, sysexits.Config, "tls=false"},
		"closes, with TLS":      {unreachable(description.Unknown, "h:27017", io.EOF), true, sysexits.Unavailable, "if it does not speak TLS"},
		"closes, without TLS":   {unreachable(description.Unknown, "h:27017", io.EOF), false, sysexits.Unavailable, "if it requires TLS"},
		"a foreign member":      {unreachable(description.TopologyKindReplicaSetNoPrimary, "db1.internal:27017", refused), false, sysexits.Unavailable, "directConnection=true"},
		"no reachable primary":  {unreachable(description.TopologyKindReplicaSetNoPrimary, "h:27017", errors.New("odd")), false, sysexits.Unavailable, "no primary"},
		"a wrong password 2":    {unreachable(description.Unknown, "h:27017", errors.New("auth error: sasl conversation")), false, sysexits.Config, "authSource"},
		"wire version":          {unreachable(description.Unknown, "h:27017", errors.New("requires at least wire version 9")), false, sysexits.Config, "4.4"},
		"anything else":         {unreachable(description.Unknown, "h:27017", errors.New("odd")), false, sysexits.Unavailable, "check that MongoDB runs"},
		"no server at all":      {topology.ServerSelectionError{}, false, sysexits.Unavailable, "check that MongoDB runs"},
	} {
		p := &Peer{Collection: "hub.readings", Hosts: []string{"h"}, TLS: tc.tls, Timeout: time.Minute}
		err := p.Fault("read documents", tc.err)
		e, ok := errors.AsType[*sysexits.Error](err)
		if !ok || e.Code != tc.status || !strings.Contains(e.Hint, tc.hint) || !strings.HasPrefix(err.Error(), "read documents: ") {
			t.Errorf("%s: %v, %+v; want %d and a hint about %q", name, err, e, tc.status, tc.hint)
		}
		if again := p.Fault("mark documents", err); again != err {
			t.Errorf("%s: Fault changes an error that has a hint already: %v", name, again)
		}
	}
	if err := (&Peer{}).Fault("x", nil); err != nil {
		t.Errorf("Fault(nil) = %v", err)
	}
}

// ParseURI accepts a connection string, or rejects it without quoting it.
func TestParseURI(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "hunter2S3cret"
	for uri, want := range map[string]string{ // a part of the error; "" means no error
		"mongodb://u:" + secret + "@h/":                               "",
		"mongodb://localhost:27017":                                   "",
		"mongodb://h1,h2/?replicaSet=rs&tls=false":                    "",
		"mongodb://u:" + secret + "@x@h/":                             "percent-encoded",
		"mongodb://u:" + secret + "/x@h/":                             "percent-encoded",
		"mongodb://u:" + secret + "?x@h":                              "percent-encoded",
		"mongodb://u:" + secret + "%zz@h/":                            "percent-encoded",
		"mongodb://u:" + secret + ":x@h/":                             "percent-encoded",
		"postgres://u:" + secret + "@h/":                              "connection string",
		"mongodb://u:" + secret + "@h/?tlsCAFile=" + dir + "/none":    "no such file",
		"mongodb://u:" + secret + "@h/?tlsCAFile=" + empty:            "no certificate in PEM",
		"mongodb://u:" + secret + "@h/?tls=true&tlsCAFile=%zz":        "percent-encoded",
		"mongodb://u:" + secret + "@h/?tlsCertificateKeyFile=/none":   "no such file",
		"mongodb://u:" + secret + "@h/?w=majority&readPreference=odd": "connection string",
	} {
		opts, err := ParseURI(uri)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", uri, err)
		case want == "" && len(opts.Hosts) == 0:
			t.Errorf("%s: no hosts", uri)
		case want != "" && (err == nil || sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret)):
			t.Errorf("%s: %v; want %q", uri, err, want)
		}
	}
	// Connections to other hosts use TLS unless the URI disables it.
	for uri, want := range map[string]bool{"mongodb://h": true, "mongodb://localhost": false, "mongodb://h/?tls=false": false, "mongodb://localhost/?tls=true": true} {
		if opts, err := ParseURI(uri); err != nil || (opts.TLSConfig != nil) != want {
			t.Errorf("%s: TLS %v, %v; want %v", uri, opts.TLSConfig != nil, err, want)
		}
	}
}
