// Package mongopeer parses MongoDB connection strings, and explains MongoDB's errors to
// an administrator.
package mongopeer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/lib/sysexits"
)

// ParseURI parses mongo_uri. No error quotes it: if a character of the password is not
// encoded, any part of the URI may belong to the password.
func ParseURI(uri string) (*options.ClientOptions, error) {
	if unescaped(uri) {
		return nil, sysexits.New(sysexits.Config, "bad_configuration", errors.New("mongo_uri: the user or the password contains a character that must be percent-encoded")).
			WithHint("write %40 for @, %3A for :, %2F for /, %3F for ?, %23 for # and %25 for %")
	}
	if err := checkFiles(uri); err != nil {
		return nil, err
	}
	opts := options.Client().ApplyURI(uri) // looks up the hosts of mongodb+srv://
	if err := opts.Validate(); err != nil {
		if strings.HasPrefix(uri, "mongodb+srv://") && strings.Contains(err.Error(), "lookup ") {
			return nil, sysexits.New(sysexits.Unavailable, "source_unavailable", errors.New("mongo_uri: the SRV record of its host name cannot be looked up")).
				WithHint("mongodb+srv:// needs a name server that has SRV records of _mongodb._tcp.NAME, or name the hosts with mongodb://")
		}
		return nil, BadConfiguration(errors.New("mongo_uri: not a valid MongoDB connection string"))
	}
	if opts.TLSConfig == nil && !decidesTLS(uri) && !allLocal(opts.Hosts) {
		opts = options.Client().ApplyURI(withTLS(uri))
		if opts.Validate() != nil {
			return nil, BadConfiguration(errors.New("mongo_uri: add tls=true or tls=false"))
		}
	}
	return opts, nil
}

// unescaped reports whether the user or the password of a URI contains a character that
// must be encoded. The driver would use a part of the password as a host.
func unescaped(uri string) bool {
	_, rest, _ := strings.Cut(uri, "://")
	head, _, _ := strings.Cut(rest, "?")
	at := strings.LastIndexByte(head, '@')
	if at < 0 {
		return strings.Contains(rest, "@") && !strings.Contains(head, "/") // a ? in the password
	}
	userinfo := head[:at]
	_, err := url.PathUnescape(userinfo)
	return err != nil || strings.ContainsAny(userinfo, "/#[]@ ") || strings.Count(userinfo, ":") > 1
}

// checkFiles checks the files that a URI names. It reports errors in place of the driver,
// whose messages quote more of the URI than the file names.
func checkFiles(uri string) error {
	_, query, _ := strings.Cut(uri, "?")
	for parameter := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		key, value, _ := strings.Cut(parameter, "=")
		switch strings.ToLower(key) {
		case "tlscafile", "sslcertificateauthorityfile", "tlscertificatekeyfile", "sslclientcertificatekeyfile", "tlscertificatefile", "tlsprivatekeyfile":
		default:
			continue
		}
		path, err := url.QueryUnescape(value)
		if err != nil {
			return BadConfiguration(fmt.Errorf("mongo_uri: %s: not correctly percent-encoded", key))
		}
		content, err := os.ReadFile(path)
		if err == nil && strings.Contains(strings.ToLower(key), "ca") && !strings.Contains(strings.ToLower(key), "key") && !x509.NewCertPool().AppendCertsFromPEM(content) &&
			(strings.EqualFold(key, "tlsCAFile") || strings.EqualFold(key, "sslCertificateAuthorityFile")) {
			err = fmt.Errorf("%s contains no certificate in PEM", path)
		}
		if err != nil {
			return sysexits.New(sysexits.Config, "bad_configuration", fmt.Errorf("mongo_uri: %s: %w", key, err)).
				WithHint("the file must exist, be in PEM, and be readable by the user of this run; the unit runs as server and cannot see /home")
		}
	}
	return nil
}

// decidesTLS reports whether the URI or its scheme decides about TLS.
func decidesTLS(uri string) bool {
	lower := strings.ToLower(uri)
	_, query, _ := strings.Cut(lower, "?")
	return strings.HasPrefix(lower, "mongodb+srv:") || strings.Contains("&"+query, "&tls=") || strings.Contains("&"+query, "&ssl=")
}

// withTLS adds tls=true to a URI.
func withTLS(uri string) string {
	if strings.Contains(uri, "?") {
		return uri + "&tls=true"
	}
	if rest := uri[strings.Index(uri, "://")+3:]; !strings.Contains(rest[strings.LastIndexByte(rest, '@')+1:], "/") {
		uri += "/"
	}
	return uri + "?tls=true"
}

// allLocal reports whether every host is this machine.
func allLocal(hosts []string) bool {
	for _, h := range hosts {
		if strings.HasSuffix(h, ".sock") {
			continue
		}
		host, _, err := net.SplitHostPort(h)
		if err != nil {
			host = strings.Trim(h, "[]")
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// BadConfiguration returns an error of mongo_uri, MONGO_DB_NAME or MONGO_COLLECTION.
func BadConfiguration(err error) error {
	if e, ok := errors.AsType[*sysexits.Error](err); ok {
		return e // it has a hint of its own
	}
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("mongo_uri has the form mongodb://user:password@host/?tls=true; MONGO_DB_NAME and MONGO_COLLECTION name the collection")
}
