package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// template is a payload, cut at its numbers.
type template struct {
	texts   []string // one more than numbers
	numbers []float64
	places  []int // decimals
}

// newTemplate cuts a payload. Numbers within strings are texts.
func newTemplate(payload string) template {
	var t template
	text, quoted := 0, false
	for i := 0; i < len(payload); i++ {
		c := payload[i]
		if c == '"' && (i == 0 || payload[i-1] != '\\') {
			quoted = !quoted
		}
		if quoted || c != '-' && (c < '0' || c > '9') {
			continue
		}
		end := i + 1
		for end < len(payload) && strings.IndexByte("0123456789.eE+-", payload[end]) >= 0 {
			end++
		}
		number := payload[i:end]
		value, err := strconv.ParseFloat(number, 64)
		if err != nil {
			continue
		}
		_, decimals, _ := strings.Cut(number, ".")
		t.texts, t.numbers, t.places = append(t.texts, payload[text:i]), append(t.numbers, value), append(t.places, len(decimals))
		text, i = end, end-1
	}
	t.texts = append(t.texts, payload[text:])
	return t
}

// vary appends the payload with other numbers of the same size. A percentage stays one.
func (t template) vary(b []byte, r *rand.Rand) []byte {
	for i, value := range t.numbers {
		b = append(b, t.texts[i]...)
		varied := value * (0.7 + 0.6*r.Float64())
		if value <= 100 {
			varied = math.Min(varied, 100)
		}
		if t.places[i] == 0 {
			varied = math.Round(varied)
		}
		b = strconv.AppendFloat(b, varied, 'f', t.places[i], 64)
	}
	return append(b, t.texts[len(t.texts)-1]...)
}

// templates samples this machine.
func (b *bench) templates() (map[string][]template, error) {
	state, err := os.MkdirTemp("", "hub-storage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(state)
	all := map[string][]template{}
	for range 20 {
		cmd := exec.Command(b.tool, "--interval", "100ms", "--state-dir", state)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%v: %w", cmd.Args, err)
		}
		for line := range bytes.Lines(out) {
			var r struct {
				MetricType string `json:"metric_type"`
				Payload    json.RawMessage
			}
			if err := json.Unmarshal(line, &r); err != nil {
				return nil, err
			}
			all[r.MetricType] = append(all[r.MetricType], newTemplate(string(r.Payload)))
		}
	}
	for _, family := range []string{"system-metrics", "gitops-sync", "volume-backup", "reading-sync"} {
		all["jobs"] = append(all["jobs"], newTemplate(`{"family":"`+family+`","ok":true,"problems":[],"running":false,"last_run":"2026-03-02T01:00:00.000Z",`+
			`"result":"success","duration_s":1.52,"next_run":"2026-03-03T01:00:00.000Z","unknown":{},"volumes":3,"stale_volumes":0,"oldest_backup_s":51234,"dead_letters":0}`))
	}
	return all, nil
}

func (b *bench) minutesBetween(day int) int {
	if day == b.days-1 {
		return 1
	}
	return b.thin
}

// fill creates the table of sysmetrics with its partitions, and the rows in the order in which they would arrive. Two sessions
// share the days.
func (b *bench) fill() error {
	templates, err := b.templates()
	if err != nil {
		return err
	}
	schema, err := exec.Command(b.tool, "schema", "--rollup").Output()
	if err != nil {
		return err
	}
	if _, err := b.db.PSQL("SET ROLE hub;\n" + string(schema)); err != nil {
		return err
	}
	b.end = time.Now().UTC().Truncate(24 * time.Hour)
	done := make(chan error)
	rows := make(chan int64, b.days)
	for part := range 2 {
		go func() {
			var err error
			for day := part; day < b.days && err == nil; day += 2 {
				var n int64
				n, err = b.fillDay(day, templates)
				rows <- n
			}
			done <- err
		}()
	}
	err = errors.Join(<-done, <-done)
	close(rows)
	for n := range rows {
		b.rows += n
	}
	if err != nil {
		return err
	}
	// The servers of the tests have no autovacuum, which does this otherwise.
	if err := b.db.Exec("ANALYZE system_metrics; SELECT sum(brin_summarize_new_values(indexrelid)) FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam " +
		"WHERE amname = 'brin' AND c.relkind = 'i' AND indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'system_metrics'::regclass)"); err != nil {
		return err
	}
	return b.db.Exec("CREATE TABLE reading_analytics (id serial PRIMARY KEY, mongo_id text UNIQUE NOT NULL, event_timestamp timestamptz, source text, event_type text, payload jsonb, meta jsonb, created_at timestamptz DEFAULT now()); " +
		fmt.Sprintf("INSERT INTO reading_analytics (mongo_id, event_timestamp, source, event_type, payload, meta, created_at) SELECT n::text, t - interval '1 hour', 'sensor' || n %% 3, 'reading', '{}', '{}', t FROM (SELECT n, '%s'::timestamptz - n * interval '1 minute' AS t FROM generate_series(1, %d) n) s; ANALYZE reading_analytics",
			b.end.Format(time.RFC3339), b.days*1440))
}

func (b *bench) fillDay(day int, templates map[string][]template) (rows int64, err error) {
	begin := b.end.AddDate(0, 0, day-b.days)
	r := rand.New(rand.NewPCG(uint64(day), 1))
	tx, err := b.db.DB().Begin()
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	// COPY into a table of the same transaction writes no WAL with wal_level = minimal, and with FREEZE leaves what autovacuum
	// would leave.
	if _, err := tx.Exec(fmt.Sprintf("SET LOCAL ROLE hub; CREATE TABLE system_metrics_p%s PARTITION OF system_metrics FOR VALUES FROM ('%s') TO ('%s')",
		begin.Format("20060102"), begin.Format(time.RFC3339), begin.AddDate(0, 0, 1).Format(time.RFC3339))); err != nil {
		return 0, err
	}
	copying, err := tx.Prepare("COPY system_metrics_p" + begin.Format("20060102") + " (time, host, os, metric_type, payload) FROM STDIN WITH (FREEZE)")
	if err != nil {
		return 0, err
	}
	hosts := make([]string, b.hosts)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("web%04d.example.org", i)
	}
	put := func(at time.Time, host, metricType string, t template) error {
		_, err := copying.Exec(at, host, "debian 12", metricType, string(t.vary(nil, r)))
		return err
	}
	step := b.minutesBetween(day)
	for minute := 0; minute < 1440; minute += step {
		for i, host := range hosts {
			at := begin.Add(time.Duration(minute)*time.Minute + time.Duration(i)*60*time.Millisecond)
			for _, metricType := range []string{"cpu", "memory", "disk", "network"} {
				all := templates[metricType]
				if err := put(at, host, metricType, all[r.IntN(len(all))]); err != nil {
					return rows, err
				}
				rows++
			}
			if minute%(5*step) == 0 {
				for n, t := range templates["jobs"] {
					if err := put(at.Add(time.Duration(n+1)*time.Millisecond), host, "jobs", t); err != nil {
						return rows, err
					}
				}
			}
		}
	}
	if _, err := copying.Exec(); err != nil {
		return rows, err
	}
	return rows, tx.Commit()
}

// rollUp fills the hourly means of the whole table.
func (b *bench) rollUp() error {
	begun := time.Now()
	cmd := exec.Command(b.tool, "rollup", "--since", "400d", "--timeout", "20m")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "DATABASE_URL=" + b.db.URL()}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%v: %w", cmd.Args, err)
	}
	b.rolledUp = time.Since(begun)
	var r struct{ Means int64 }
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	b.means = r.Means
	return b.db.Exec("VACUUM (ANALYZE) system_metrics_hourly")
}
