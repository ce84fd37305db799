package mongopeer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/description"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"observability-hub/lib/sysexits"
)

// Peer describes a MongoDB deployment for error messages.
type Peer struct {
	Collection string   // database.collection
	Hosts      []string // the hosts that mongo_uri names
	TLS        bool     // connections use TLS
	Timeout    time.Duration
}

// Fault adds an exit status and a hint to an error of the driver. Errors that an
// administrator must correct become bad configuration. All others may be over by the
// next run.
func (p *Peer) Fault(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[topology.ServerSelectionError](err); ok {
		return p.unreachable(doing, e)
	}
	err = fmt.Errorf("%s: %w", doing, err)
	refused := func(hint string) error {
		return sysexits.New(sysexits.Config, "source_refused", err).WithHint(hint)
	}
	unavailable := func(hint string) error {
		return sysexits.New(sysexits.Unavailable, "source_unavailable", err).WithHint(hint)
	}
	e, answered := errors.AsType[mongo.CommandError](err)
	switch text := err.Error(); {
	case strings.Contains(text, "wire version"):
		return refused(tooOld)
	case answered && e.Code == 18, strings.Contains(text, "auth error"):
		return refused("check the user and password of mongo_uri, and authSource, the database that the user was created in")
	case answered && (e.Code == 13 || e.Code == 8000 || e.Code == 31): // Unauthorized, AtlasError, RoleNotFound
		return refused("the user of mongo_uri must be allowed to find and update in " + p.Collection)
	case answered && (e.Code == 166 || e.Code == 72 && strings.Contains(text, "view")): // CommandNotSupportedOnView
		return refused("MONGO_COLLECTION must name the collection that documents are written to, not a view")
	case answered && e.Code == 26, answered && e.Code == 73: // NamespaceNotFound, InvalidNamespace
		return refused("check MONGO_DB_NAME and MONGO_COLLECTION")
	case TimedOut(err):
		return unavailable(fmt.Sprintf("MongoDB did not answer within --timeout %v: an index on {status: 1, _id: 1} makes reading cheap; or use a longer --timeout", p.Timeout))
	case answered && slices.Contains([]int32{91, 189, 10107, 11600, 11602, 13435, 13436}, e.Code):
		return unavailable("the replica set is changing its primary, or has none; run again when it has one")
	case answered:
		return unavailable("the server answered that it cannot do this now: read the log of MongoDB")
	}
	return unavailable("the connection to MongoDB was lost: read the log of MongoDB")
}

const tooOld = "this MongoDB is too old: readsync needs version 4.4 or later"

// TimedOut reports whether a query exceeded the time limit of the server or of readsync.
func TimedOut(err error) bool {
	e, ok := errors.AsType[mongo.CommandError](err)
	return ok && (e.Code == 50 || e.Code == 262) || mongo.IsTimeout(err) || errors.Is(err, context.DeadlineExceeded)
}

// unreachable returns the error of a deployment without a usable server. The driver's
// own text describes the whole topology, therefore the error names the cause of one
// server only: preferably one that mongo_uri does not name.
func (p *Peer) unreachable(doing string, e topology.ServerSelectionError) error {
	cause := e.Wrapped
	var address string
	foreign := false // mongo_uri does not name the server
	for _, server := range e.Desc.Servers {
		if server.LastError != nil && !foreign {
			cause, address = server.LastError, string(server.Addr)
			foreign = !slices.ContainsFunc(p.Hosts, func(h string) bool { return strings.EqualFold(h, address) || strings.EqualFold(h+":27017", address) })
		}
	}
	if cause == nil {
		cause = errors.New("no server can be used")
	}
	err := fmt.Errorf("%s: connect to MongoDB at %s: %w", doing, address, cause)
	refused := func(hint string) error {
		return sysexits.New(sysexits.Config, "source_refused", err).WithHint(hint)
	}
	unavailable := func(hint string) error {
		return sysexits.New(sysexits.Unavailable, "source_unavailable", err).WithHint(hint)
	}
	switch text := cause.Error(); {
	case e.Desc.CompatibilityErr != nil, strings.Contains(text, "wire version"):
		if e.Desc.CompatibilityErr != nil {
			err = fmt.Errorf("%s: %w", doing, e.Desc.CompatibilityErr)
		}
		return refused(tooOld)
	case strings.Contains(text, "auth error"), strings.Contains(text, "AuthenticationFailed"):
		return refused("check the user and password of mongo_uri, and authSource, the database that the user was created in")
	case distrusted(cause):
		return refused("the server's certificate must be valid, name that host, and be signed by an authority of this host or of tlsCAFile=/path in mongo_uri")
	case errors.As(cause, new(tls.RecordHeaderError)):
		return refused("the server does not speak TLS at that address: add tls=false to mongo_uri if you trust the network")
	case foreign && e.Desc.Kind == description.TopologyKindReplicaSetNoPrimary:
		return unavailable(fmt.Sprintf("the replica set names its member %s, which this machine cannot reach: make that name resolve to the member, or add directConnection=true to mongo_uri", address))
	case errors.As(cause, new(*net.DNSError)):
		return unavailable("the host name in mongo_uri cannot be looked up: check it, and this machine's name server")
	case strings.Contains(text, "connection refused"):
		return unavailable("check that MongoDB runs and listens on the address in mongo_uri")
	case p.TLS && (errors.Is(cause, io.EOF) || strings.Contains(text, "connection reset")):
		return unavailable("the server closed the connection: if it does not speak TLS, and if you trust the network, add tls=false to mongo_uri")
	case errors.Is(cause, io.EOF), strings.Contains(text, "EOF"), strings.Contains(text, "connection reset"):
		return unavailable("the server closed the connection: if it requires TLS, add tls=true to mongo_uri")
	case e.Desc.Kind == description.TopologyKindReplicaSetNoPrimary:
		return unavailable("the replica set has no primary that can be reached")
	}
	return unavailable("check that MongoDB runs; if it requires TLS, add tls=true to mongo_uri, otherwise tls=false")
}

// distrusted reports whether a bad certificate caused an error.
func distrusted(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError))
}
