package cli

import (
	"io"
	"strings"
	"testing"
)

// A run with a retryable status is tried as often as the environment says. Other runs are not retried.
func TestRetry(t *testing.T) {
	for _, c := range []struct {
		tries, after string
		args         []string
		want         int // failures
	}{
		{"", "", []string{"--fail"}, 1},
		{"3", "1ms", []string{"--fail"}, 3},
		{"3", "1ms", []string{"--nonsense"}, 1}, // usage
		{"1", "1ms", []string{"--fail"}, 1},
		{"3", "soon", []string{"--fail"}, 1},
		{"many", "1ms", []string{"--fail"}, 1},
		{"3", "1ms", nil, 0},
	} {
		env := []string{triesVariable + "=" + c.tries, afterVariable + "=" + c.after}
		status, stderr := runTool(t, io.Discard, env, c.args...)
		if got := strings.Count(stderr, `"level":"ERROR"`); got != c.want || (status == 0) != (c.want == 0) {
			t.Errorf("%v %v: status %d, %d errors; want %d\n%s", env, c.args, status, got, c.want, stderr)
		}
	}
}
