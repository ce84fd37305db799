package readsync

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/await"
	"observability-hub/e2e/events"
	"observability-hub/e2e/mongowire"
)

// TestHTTPEvents provokes each event of trigger and serve, and compares every line with its documentation.
func TestHTTPEvents(t *testing.T) {
	t.Parallel()
	docs := events.Read(t)
	h := newHub(t, mongowire.Config{})
	trigger := func(event string, status int, body string, args ...string) {
		t.Helper()
		peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		defer peer.Close()
		got := finish(t, h.command(append([]string{"trigger", "--url", peer.URL, "--deadline", "500ms"}, args...)...))
		docs.Check(t, event, got.stdout)
		docs.Check(t, event, got.stderr)
		if !strings.Contains(got.stdout+got.stderr, `"msg":"`+event+`"`) {
			t.Errorf("the output lacks %s: status %d\n%s%s", event, got.status, got.stdout, clip(got.stderr))
		}
	}
	trigger("triggered", 200, `{"status":"success","processed_count":0}`)
	trigger("not_drained", 200, `{"status":"success","processed_count":1}`)
	trigger("bad_answer", 200, "<html>")
	trigger("sync_failed", 200, `{"status":"error","message":"no"}`)
	trigger("proxy_refused", 404, "")
	trigger("proxy_unavailable", 503, "")
	trigger("call_failed", 503, "", "--deadline", "1500ms")
	trigger("proxy_busy", 409, "")
	plain := h.env
	h.env = append(plain, "PROXY_AUTH=hunter2")
	trigger("bad_configuration", 200, "")
	h.env = plain

	docs.Check(t, "usage", finish(t, h.command("serve")).stderr)
	serving := h.serve()
	endpoint := serving.url
	request, err := http.NewRequest(http.MethodPost, endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "http://evil.example")
	if answer, err := http.DefaultClient.Do(request); err != nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("call from a page of another site: %v, %v", answer, err)
	}
	h.put(document(t, "bad", bson.E{Key: "source", Value: "\x00"}))
	answer, err := http.Post(endpoint, "", nil)
	if err != nil || answer.StatusCode != http.StatusInternalServerError {
		t.Fatalf("call with a document that is rejected: %v, %v", answer, err)
	}
	// The call ends after its caller has read the answer. A signal before that would end it early.
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	await.Until(t, "the call ends", func() bool { return serving.running() == 0 })
	leftBehind := false
	for _, got := range serving.stop() {
		docs.Check(t, "serve", got.stdout)
		docs.Check(t, "serve", got.stderr)
		leftBehind = leftBehind || got.status == exitPartial && strings.Contains(got.stderr, `"msg":"left_behind"`)
	}
	if !leftBehind {
		t.Error("no call exited with status 11 and left_behind")
	}
	// trigger reports the same itself. Then the call succeeds.
	h.put(document(t, "bad too", bson.E{Key: "source", Value: "\x00"}))
	serving = h.serve()
	got := finish(t, h.command("trigger", "--url", serving.url))
	docs.Check(t, "trigger", got.stdout)
	docs.Check(t, "trigger", got.stderr)
	if got.status != exitPartial || !strings.Contains(got.stdout, `"left_behind":true`) || !strings.Contains(got.stderr, `"msg":"left_behind"`) {
		t.Errorf("trigger exits with status %d\n%s%s", got.status, got.stdout, clip(got.stderr))
	}
	await.Until(t, "the calls end", func() bool { return serving.running() == 0 })
	for _, got := range serving.stop() {
		if got.status != 0 || strings.Contains(got.stderr, `"msg":"left_behind"`) {
			t.Errorf("a call of trigger exits with status %d\n%s", got.status, clip(got.stderr))
		}
	}
	docs.Demand(t, "readsync/trigger.go", "readsync/answer.go", "readsync/serve.go", "readsync/endpoint.go")
}
