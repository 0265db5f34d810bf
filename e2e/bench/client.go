package bench

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Connect returns a client of the cluster of a kubeconfig file that does not hold a burst of requests back.
func Connect(kubeconfig string) (*kubernetes.Clientset, error) {
	client, _, err := ConnectAs(kubeconfig)
	return client, err
}

// ConnectAs is Connect, and returns the credentials as well.
func ConnectAs(kubeconfig string) (*kubernetes.Clientset, *rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, err
	}

	config.QPS, config.Burst = 1000, 1000
	client, err := kubernetes.NewForConfig(config)
	return client, config, err
}
