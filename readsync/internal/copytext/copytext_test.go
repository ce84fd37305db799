package copytext

import "testing"

// FailedLine finds the line of a failed COPY into either table.
func TestFailedLine(t *testing.T) {
	for _, tc := range []struct {
		where string
		want  int
	}{
		{"COPY readsync_staging, line 7, column payload: \"…\"", 6},
		{"JSON data, line 1: {\"a\":…\nCOPY readsync_staging, line 3, column payload: \"{\"", 2},
		{"COPY reading_analytics, line 10", 9},
		{"COPY readsync_staging, line 11", -1},
		{"COPY readsync_staging, line 0", -1},
		{"COPY other, line 2", -1},
		{"", -1},
	} {
		if got := FailedLine(tc.where, 10, "readsync_staging", "reading_analytics"); got != tc.want {
			t.Errorf("FailedLine(%q) = %d; want %d", tc.where, got, tc.want)
		}
	}
}
