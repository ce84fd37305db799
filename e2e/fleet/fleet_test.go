package fleet

import (
	"fmt"
	"testing"

	"observability-hub/e2e/postgres"
)

// oldTable has no unique index, so only the tool's own lock and check avoid duplicates.
const oldTable = `SET ROLE hub; DROP TABLE IF EXISTS system_metrics;
	CREATE TABLE system_metrics (time TIMESTAMPTZ NOT NULL, host TEXT NOT NULL, os TEXT NOT NULL, metric_type TEXT NOT NULL, payload JSONB NOT NULL)`

// Many hosts send at once, through PgBouncer with passwords, and to a server that has not enough sessions for all of them. Then
// each host sends its records again. Nothing is lost and nothing is doubled.
func TestFleet(t *testing.T) {
	b, err := Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := postgres.Run(t, postgres.Config{TCP: true, Conf: []string{"max_connections = 12"}})
	pooler := postgres.RunPooler(t, c, "max_client_conn = 1000", "default_pool_size = 3")
	for _, tc := range []struct {
		name, url string
		order     Order
		refuses   bool
	}{
		{"PgBouncer", pooler.URL(), Order{Hosts: 60, Seconds: 1, Samples: 3}, false},
		{"too few sessions", c.TCPURL(), Order{Hosts: 100, Samples: 1}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := c.PSQL(oldTable); err != nil {
				t.Fatal(err)
			}
			tc.order.Name, tc.order.Replay = "web", true
			r, err := b.Run(t.TempDir(), tc.url, tc.order)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d flushes, %d failed, p50 %.3f s, p99 %.3f s, %d more flushes", r.Flushes, r.Failed, r.P50, r.P99, r.Retries)
			want := int64(tc.order.Hosts * tc.order.Samples * b.Records())
			if r.Inserted != want || r.Lost != 0 || r.Waiting != 0 || r.Duplicates != want || (r.Failed > 0) != tc.refuses {
				t.Errorf("%+v; want %d inserted, as many duplicates, nothing lost or waiting; failures: %v", r, want, tc.refuses)
			}
			rows, err := c.Query("SELECT count(*), count(DISTINCT (time, host, metric_type)) FROM system_metrics")
			if err != nil || fmt.Sprint(rows[0]) != fmt.Sprint([]int64{want, want}) {
				t.Errorf("rows and different rows: %v, %v; want %d of each", rows, err, want)
			}
		})
	}
}
