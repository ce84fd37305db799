package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
)

// answer is the answer of the endpoint: {"service":"reading-sync",
// "status":"success","processed_count":N,"timestamp":"…"}, or status "error" and
// a message. readsync serve adds left_behind if the sync could not sync or mark all
// documents. Proxy Services do not have it, and other callers ignore it.
type answer struct {
	Service    string `json:"service"`
	Status     string `json:"status"`
	Processed  *int64 `json:"processed_count,omitempty"`
	Message    string `json:"message,omitempty"`
	LeftBehind string `json:"left_behind,omitempty"`
	Timestamp  string `json:"timestamp"`
}

// reportsHeader is the header of a call whose caller itself fails if the answer has
// left_behind. Then the unit of serve need not fail too.
const reportsHeader = "Readsync-Reports-Left-Behind"

// Values of an answer's status.
const (
	answerSuccess = "success"
	answerError   = "error"
)

// maxAnswer limits the bytes that are read of an answer's body and of its header.
const maxAnswer = 64 << 10

// maxProcessed limits the processed_count of one call. Every JSON reader represents
// integers up to this one exactly.
const maxProcessed = 1 << 53

// proxy is the endpoint that trigger calls: a Proxy Service, or readsync serve.
type proxy struct {
	url      *url.URL
	client   *http.Client
	bodyWait time.Duration // maximum time from the header of an answer to its end
}

// failure is a call that did not succeed.
type failure struct {
	err        error         // with its exit status
	again      bool          // a retry may succeed
	busy       bool          // another sync is running
	after      time.Duration // minimum wait before a retry
	leftBehind string        // of the answer
}

// errSlow cancels the reading of an answer whose body takes longer than bodyWait.
var errSlow = errors.New("the answer started but did not end in time")

// call makes one call. It returns the number of documents that it processed, and
// left_behind of the answer.
func (p *proxy) call(ctx context.Context) (processed int64, leftBehind string, f *failure) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), http.NoBody)
	if err != nil {
		return 0, "", &failure{err: errors.New("--url: cannot be called")}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", name+"/"+cli.Version)
	req.Header.Set(reportsHeader, "yes")
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, "", p.lost(ctx, err)
	}
	defer resp.Body.Close()
	// The header arrives when the sync is done, which may take until the deadline. The
	// body after it is short.
	defer time.AfterFunc(p.bodyWait, func() { cancel(errSlow) }).Stop()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, "", p.lost(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		return 0, "", p.refusal(resp, body)
	}
	n, leftBehind, err := parseAnswer(body)
	if err != nil {
		if errors.Is(err, errSyncFailed) {
			return 0, "", &failure{err: sysexits.New(sysexits.Failed, "sync_failed", fmt.Errorf("POST %s: %w", shownURL(p.url), err)).
				WithHint("read the log of the Proxy Service")}
		}
		return 0, "", &failure{err: sysexits.New(sysexits.DataErr, "bad_answer", fmt.Errorf("POST %s: status %d, but %w", shownURL(p.url), resp.StatusCode, err)).
			WithHint(`check --url, and any proxy between this host and the Proxy Service, which answers {"status":"success","processed_count":N}`)}
	}
	return n, leftBehind, nil
}

// errSyncFailed is the error of an answer with HTTP status 2xx and status "error".
var errSyncFailed = errors.New("the sync failed")

// parseAnswer returns processed_count and left_behind of an answer of HTTP status 2xx.
// It does not depend on the content type, because servers that do not set it send JSON
// as text/plain.
func parseAnswer(body []byte) (processed int64, leftBehind string, err error) {
	if len(body) > maxAnswer {
		return 0, "", fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return 0, "", errors.New("an empty answer")
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, "", fmt.Errorf("an answer that is not the JSON of a sync: %s", excerpt(body))
	}
	switch {
	case a.Status == answerError:
		return 0, "", fmt.Errorf("%w: %s", errSyncFailed, excerpt([]byte(a.Message)))
	case a.Status != answerSuccess:
		return 0, "", fmt.Errorf("an answer without status success: %s", excerpt(body))
	case a.Processed == nil || *a.Processed < 0 || *a.Processed > maxProcessed:
		return 0, "", fmt.Errorf("an answer without a valid processed_count: %s", excerpt(body))
	}
	return *a.Processed, a.LeftBehind, nil
}

// excerpt returns the beginning of a peer's text as one quoted line.
func excerpt(body []byte) string {
	const enough = 200
	text := strings.Join(strings.Fields(string(body[:min(len(body), 4*enough)])), " ")
	if len(text) > enough {
		text = strings.ToValidUTF8(text[:enough], "") + "…"
	}
	return strconv.Quote(text)
}

// lost returns the failure of a call without a complete answer.
func (p *proxy) lost(ctx context.Context, err error) *failure {
	// The text of a url.Error contains the URL, which may contain a password.
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if cause := context.Cause(ctx); errors.Is(cause, errSlow) {
		err = cause
	} else if errors.Is(cause, context.DeadlineExceeded) {
		err = errors.New("no answer before the deadline")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the connection ended before the answer did")
	}
	err = fmt.Errorf("POST %s: %w", shownURL(p.url), err)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &failure{err: sysexits.New(sysexits.Config, "proxy_refused", err).
			WithHint("its certificate must be valid for that name and signed by an authority that this host trusts")}
	}
	return &failure{again: true, err: sysexits.New(sysexits.Unavailable, "proxy_unavailable", err).
		WithHint("check the address in --url; on a host without a Proxy Service: systemctl enable --now reading-sync-api.socket")}
}

// refusal returns the failure of an answer whose HTTP status is not 2xx.
func (p *proxy) refusal(resp *http.Response, body []byte) *failure {
	text := fmt.Sprintf("POST %s: status %d", shownURL(p.url), resp.StatusCode)
	var a answer
	if json.Unmarshal(body, &a) == nil && a.Message != "" {
		text += ": " + excerpt([]byte(a.Message))
	} else if len(bytes.TrimSpace(body)) > 0 {
		text += ": " + excerpt(body)
	}
	f := &failure{after: retryAfter(resp.Header.Get("Retry-After"), time.Now()), leftBehind: a.LeftBehind}
	switch status := resp.StatusCode; {
	case status == http.StatusConflict:
		f.again, f.busy = true, true
		f.err = sysexits.New(sysexits.TempFail, "proxy_busy", errors.New(text)).
			WithHint("another sync ran until the deadline; run again after it has ended")
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		f.again = true
		f.err = sysexits.New(sysexits.Unavailable, "proxy_unavailable", errors.New(text)).
			WithHint("read the log of the Proxy Service; if it is readsync serve: journalctl -u 'reading-sync-api@*'")
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		f.err = sysexits.New(sysexits.Config, "proxy_refused", errors.New(text)).
			WithHint("set the credential proxy_auth to the user:password that the Proxy Service expects")
	case status/100 == 3:
		if to, err := url.Parse(resp.Header.Get("Location")); err == nil && to.Host+to.Path != "" {
			text += ", which redirects to " + shownURL(to)
		}
		fallthrough
	default:
		f.err = sysexits.New(sysexits.Config, "proxy_refused", errors.New(text)).
			WithHint("check --url: redirects are not followed, and the endpoint must accept POST")
	}
	return f
}

// retryAfter parses a Retry-After header, which is a number of seconds or a date. It
// returns 0 for anything else.
func retryAfter(header string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(strings.TrimSpace(header), 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
