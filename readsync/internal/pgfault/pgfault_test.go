package pgfault

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lib/pq"
)

// The class of an error decides whether one document is rejected or all documents wait.
func TestClassification(t *testing.T) {
	known := []string{"payload"}
	for _, tc := range []struct {
		err                      error
		content, table, doubtful bool
	}{
		{&pq.Error{Code: "22P02"}, true, false, true},
		{fmt.Errorf("write rows: %w", &pq.Error{Code: "23514"}), true, false, true},
		{&pq.Error{Code: "44000"}, true, false, true},
		{&pq.Error{Code: "54000"}, true, false, true},
		{&pq.Error{Code: "P0001"}, true, false, true},
		{&pq.Error{Code: "42501", Routine: "ExecWithCheckOptions"}, true, false, true},
		{&pq.Error{Code: "0A000"}, false, false, true},
		{&pq.Error{Code: "42883"}, false, false, true},
		{&pq.Error{Code: "23502", Column: "payload"}, true, false, true},
		{&pq.Error{Code: "23502", Column: "mongo_id"}, true, false, true},
		{&pq.Error{Code: "23502", Column: "tenant"}, false, true, false},
		{&pq.Error{Code: "2200H"}, false, true, false},
		{&pq.Error{Code: "22003", Routine: "int84"}, false, true, false},
		{&pq.Error{Code: "23505", Detail: "Key (id)=(5) already exists."}, false, true, false},
		{&pq.Error{Code: "23505", Detail: "Key (mongo_id)=(5) already exists."}, true, false, true},
		{&pq.Error{Code: "40001"}, false, false, false},
		{&pq.Error{Code: "53100"}, false, false, false},
		{&pq.Error{Code: "57014"}, false, false, false},
		{&pq.Error{Code: "28P01"}, false, false, false},
		{errors.New("a lost connection"), false, false, false},
	} {
		pe, ok := errors.AsType[*pq.Error](tc.err)
		if got := Content(tc.err, known); got != tc.content {
			t.Errorf("Content(%+v) = %v", tc.err, got)
		}
		if ok && (Table(pe, known) != "") != tc.table {
			t.Errorf("Table(%+v) = %q", tc.err, Table(pe, known))
		}
		if got := Doubtful(tc.err, known); got != tc.doubtful {
			t.Errorf("Doubtful(%+v) = %v", tc.err, got)
		}
		if !ok && Code(tc.err, "40001") || ok && (!Code(tc.err, "1", string(pe.Code)) || Code(tc.err, "1")) {
			t.Errorf("Code(%+v)", tc.err)
		}
	}
}
