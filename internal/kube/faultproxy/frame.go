package faultproxy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// maxFrame is the size of an event that is believed.
const maxFrame = 16 << 20

// codec is the encoding of a watch: JSON values in a row, or protobuf messages that each follow their length
// in four bytes.
type codec struct{ protobuf bool }

func codecOf(contentType string) codec {
	return codec{strings.HasPrefix(contentType, runtime.ContentTypeProtobuf)}
}

// reader returns a function that reads the next frame.
func (c codec) reader(from io.Reader) func() ([]byte, error) {
	if !c.protobuf {
		decoder := json.NewDecoder(from)
		return func() ([]byte, error) {
			var frame json.RawMessage
			err := decoder.Decode(&frame)
			return frame, err
		}
	}

	return func() ([]byte, error) {
		var length uint32
		if err := binary.Read(from, binary.BigEndian, &length); err != nil {
			return nil, err
		}
		if length > maxFrame {
			return nil, fmt.Errorf("event of %d bytes", length)
		}
		frame := make([]byte, length)
		_, err := io.ReadFull(from, frame)
		return frame, err
	}
}

// bytes is a frame as it is sent.
func (c codec) bytes(frame []byte) []byte {
	if !c.protobuf {
		return append(bytes.Clone(frame), '\n')
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

func (c codec) write(to io.Writer, frame []byte) error {
	_, err := to.Write(c.bytes(frame))
	return err
}

// event is what is in a frame.
type event struct {
	frame []byte
	kind  watch.EventType

	// last: it is the bookmark that ends the initial events.
	last    bool
	version string
	object  runtime.Object
}

// decode reads a frame.
func (c codec) decode(frame []byte) (event, error) {
	out := metav1.WatchEvent{}
	unmarshal := func(data []byte) error { return json.Unmarshal(data, &out) }
	if c.protobuf {
		unmarshal = out.Unmarshal
	}
	if err := unmarshal(frame); err != nil {
		return event{}, err
	}

	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(out.Object.Raw, nil, nil)
	if err != nil {
		return event{}, err
	}

	e := event{frame: frame, kind: watch.EventType(out.Type), object: object}
	if about, err := meta.Accessor(object); err == nil {
		e.version = about.GetResourceVersion()
		e.last = about.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
	}
	return e, nil
}

// encode makes a frame.
func (c codec) encode(kind watch.EventType, object runtime.Object) ([]byte, error) {
	if !c.protobuf {
		return json.Marshal(map[string]any{"type": kind, "object": object})
	}

	var raw bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(object, &raw); err != nil {
		return nil, err
	}
	out := metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw.Bytes()}}
	return out.Marshal()
}

// bookmark makes a bookmark with the version of an event.
func (c codec) bookmark(of event) ([]byte, error) {
	kind := of.object.GetObjectKind().GroupVersionKind()
	object, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, err
	}

	about, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	about.SetResourceVersion(of.version)
	object.GetObjectKind().SetGroupVersionKind(kind)
	return c.encode(watch.Bookmark, object)
}

// expired makes the error with which a server ends a watch that it cannot go on with.
func (c codec) expired() ([]byte, error) {
	status := statusOf(apierrors.NewResourceExpired("a fault"))
	return c.encode(watch.Error, &status)
}

func statusOf(err *apierrors.StatusError) metav1.Status {
	status := err.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	return status
}

// jsonOf is the body of a refusal.
func jsonOf(err *apierrors.StatusError) []byte {
	data, failed := json.Marshal(statusOf(err))
	if failed != nil {
		// a Status is plain data
		panic(errors.Join(err, failed))
	}
	return data
}
