// Kstatus reads Kubernetes objects as JSON, one after the other, and writes what Flux makes of each: its status and a message.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Status  status.Status `json:"status"`
	Message string        `json:"message"`
}

func main() {
	if err := judge(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

// judge writes one line of JSON for each object.
func judge(objects io.Reader, verdicts io.Writer) error {
	decoder, encoder := json.NewDecoder(objects), json.NewEncoder(verdicts)
	for {
		var text json.RawMessage
		if err := decoder.Decode(&text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading objects: %w", err)
		}
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(text); err != nil {
			return fmt.Errorf("decoding an object: %w", err)
		}
		result, err := status.Compute(&object)
		if err != nil {
			return fmt.Errorf("computing the status of %s: %w", object.GetName(), err)
		}
		if err := encoder.Encode(verdict{result.Status, result.Message}); err != nil {
			return fmt.Errorf("writing a verdict: %w", err)
		}
	}
}
